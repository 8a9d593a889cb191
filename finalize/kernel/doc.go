// Package kernel reads the kernel's own tables of a file system: its superblock, mounted or not; its
// mounts, in whatever namespace or in none, and how often each is referred to; and the processes, of
// whatever PID namespace, that use it.
//
// Small BPF programs copy kernel memory, and BTF says where each field is. Nothing is written, and
// nothing stays behind. No lock is held: a process that changes while it is read is read again, and
// each use that is returned was seen twice. It takes CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, and
// a kernel of Linux 5.17 or newer with BTF.
package kernel
