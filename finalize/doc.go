// Package finalize releases a target: it gives back everything that refers to it, proves that,
// unmounts once, and proves that the kernel let go.
//
// A release is an ordered list of stages, which are values: each does one thing, leaves evidence in
// the report, and may make a proof. A target is released when every required proof was made and
// holds. Busy is a finding that names the holder: the package never waits, and unmounts nothing
// lazily.
//
// Package holders searches for holders, package disk/mounts lists, mounts and unmounts, package
// disk/fsinfo reads superblocks. The package knows nothing of the content of a target: callers hand
// over handles with names.
package finalize
