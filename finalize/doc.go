// Package finalize releases a target: it gives everything back that refers to
// it, proves that, unmounts once, and proves that the kernel let go.
//
// A release is an ordered list of stages (see DiskStages), each of which does one
// thing and leaves evidence in the report. Busy is a finding that names the
// holder; it is never waited out, and nothing is unmounted lazily.
//
// The search for holders is package holders, mounts are package mounts. What is
// on the target's file system, and how it came there, is not known here: it is
// handed over as handles with names.
package finalize
