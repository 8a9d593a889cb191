// Package kernel reads the kernel's own tables of a file system: its mounts, in whatever namespace
// or in none, and how often each is referred to. They need no process that may be looked at.
//
// A small BPF program copies kernel memory, and BTF says where each field is. Nothing is written,
// and nothing stays behind. It takes CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, and a kernel with
// BTF.
package kernel
