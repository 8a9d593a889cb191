package finalize

import (
	"slices"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// kind is where a file system keeps its content, which decides how its release is proven.
type kind int

const (
	stored     kind = iota // on block devices: each of them proves that the superblock is gone
	inMemory               // in the kernel's memory: nothing outlives the superblock
	layered                // in files of other file systems, which have a release of their own
	interfaces             // in the kernel itself, which keeps the superblock: there is nothing to release
	elsewhere              // with a server, a pool or a program, of which no proof is known here
)

func kindOf(m mounts.Mount) kind {
	switch {
	case holders.Stored(m):
		return stored
	case slices.Contains([]string{"tmpfs", "ramfs", "hugetlbfs", "devpts"}, m.FSType):
		return inMemory
	case slices.Contains([]string{"overlay", "erofs", "squashfs"}, m.FSType):
		return layered
	case slices.Contains([]string{"proc", "sysfs", "devtmpfs", "cgroup", "cgroup2", "mqueue", "securityfs", "debugfs", "tracefs",
		"configfs", "bpf", "binfmt_misc", "pstore", "efivarfs", "fusectl", "selinuxfs", "nsfs", "rpc_pipefs", "autofs"}, m.FSType):
		return interfaces
	}
	return elsewhere
}

// neverWritten are the types that the kernel cannot write: they have no journal, and need no flush.
var neverWritten = []string{"erofs", "squashfs", "iso9660", "cramfs", "romfs"}
