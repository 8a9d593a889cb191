package kernel

import (
	"fmt"
	"sync"
)

// field is a field of a structure.
type field struct {
	offset  uint64
	size    int
	pointer bool
}

// layout has the fields of the running kernel's structures that are read.
type layout struct {
	task  struct{ files field }
	files struct{ table, list, mount, private field }
	mount struct {
		inner, superblock, root, flags, next, counts, id, unique, children, sibling, namespace field
		parent, point, group, master                                                           field
	}
	super struct{ mounts, active, frozen field }
	inode field // of a mount namespace
	count field // of one processor's counts of a mount
	// given counts the references to a mount that were given back, since Linux 7: count has only those
	// that were taken.
	given field
	array field // of the values of a BPF map that has some for each processor
}

// kernelLayout returns the layout. The kernel's types are many, and read once.
var kernelLayout = sync.OnceValues(readLayout)

func readLayout() (*layout, error) {
	t, closeTypes, err := openTypes()
	if err != nil {
		return nil, fmt.Errorf("reading the types of the kernel: %w", err)
	}
	defer closeTypes()
	return layoutOf(t)
}

// layoutOf finds the fields in the types of a kernel.
func layoutOf(t *types) (*layout, error) {
	l := &layout{}
	l.task.files = t.field("task_struct", "files")
	l.files.table, l.files.list = t.field("files_struct", "fdt"), t.field("fdtable", "fd")
	l.files.mount, l.files.private = t.field("file", "f_path", "mnt"), t.field("file", "private_data")
	l.mount.inner = t.field("mount", "mnt")
	l.mount.superblock = t.field("mount", "mnt", "mnt_sb")
	l.mount.root, l.mount.flags = t.field("mount", "mnt", "mnt_root"), t.field("mount", "mnt", "mnt_flags")
	l.mount.parent, l.mount.point = t.field("mount", "mnt_parent"), t.field("mount", "mnt_mountpoint")
	l.mount.group, l.mount.master = t.field("mount", "mnt_group_id"), t.field("mount", "mnt_master")
	l.mount.counts = t.field("mount", "mnt_pcp")
	if t.has("mnt_pcp", "mnt_gets") {
		l.count, l.given = t.field("mnt_pcp", "mnt_gets"), t.field("mnt_pcp", "mnt_puts")
	} else {
		l.count = t.field("mnt_pcp", "mnt_count")
	}
	l.mount.children, l.mount.sibling = t.field("mount", "mnt_mounts"), t.field("mount", "mnt_child")
	l.mount.namespace, l.inode = t.field("mount", "mnt_ns"), t.field("mnt_namespace", "ns", "inum")
	l.mount.id = t.field("mount", "mnt_id")
	if t.has("mount", "mnt_id_unique") { // since Linux 6.8
		l.mount.unique = t.field("mount", "mnt_id_unique")
	}
	l.super.active, l.super.frozen = t.field("super_block", "s_active", "counter"), t.field("super_block", "s_writers", "frozen")
	l.super.mounts = t.field("super_block", "s_mounts")
	next := "mnt_instance"
	if l.super.mounts.pointer { // since Linux 6.18
		next = "mnt_next_for_sb"
	}
	l.mount.next = t.field("mount", next)
	l.array = t.field("bpf_array", "pptrs")
	return l, t.err
}
