package kernel

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf/btf"
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
	array field // of the values of a BPF map that has some for each processor
}

// kernelLayout returns the layout. The kernel's types are many, and read once.
var kernelLayout = sync.OnceValues(func() (*layout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("reading the types of the kernel: %w", err)
	}
	t := types{spec: spec}
	l := &layout{}
	l.task.files = t.field("task_struct", "files")
	l.files.table, l.files.list = t.field("files_struct", "fdt"), t.field("fdtable", "fd")
	l.files.mount, l.files.private = t.field("file", "f_path", "mnt"), t.field("file", "private_data")
	l.mount.inner = t.field("mount", "mnt")
	l.mount.superblock = t.field("mount", "mnt", "mnt_sb")
	l.mount.root, l.mount.flags = t.field("mount", "mnt", "mnt_root"), t.field("mount", "mnt", "mnt_flags")
	l.mount.parent, l.mount.point = t.field("mount", "mnt_parent"), t.field("mount", "mnt_mountpoint")
	l.mount.group, l.mount.master = t.field("mount", "mnt_group_id"), t.field("mount", "mnt_master")
	l.mount.counts, l.count = t.field("mount", "mnt_pcp"), t.field("mnt_pcp", "mnt_count")
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
})

// types are the types of the running kernel.
type types struct {
	spec *btf.Spec
	err  error // the first one
}

// field returns a field, by its name in a structure, the name of a field in that, and so on. The
// offset is from the start of the structure.
func (t *types) field(structure string, names ...string) field {
	var s *btf.Struct
	if t.err == nil {
		t.err = t.spec.TypeByName(structure, &s)
	}
	if t.err != nil {
		return field{}
	}
	var kind btf.Type = s
	var f field
	for _, name := range names {
		at, next := member(kind, name)
		if next == nil {
			t.err = fmt.Errorf("the kernel's struct %s has no field %v", structure, names)
			return field{}
		}
		f.offset, kind = f.offset+at, next
	}
	_, f.pointer = btf.UnderlyingType(kind).(*btf.Pointer)
	f.size, t.err = btf.Sizeof(kind)
	return f
}

// has reports whether a structure has a field.
func (t *types) has(structure, name string) bool {
	var s *btf.Struct
	if t.err != nil || t.spec.TypeByName(structure, &s) != nil {
		return false
	}
	_, kind := member(s, name)
	return kind != nil
}

// member finds a field, also in structures and unions that have no name; the type is nil if there
// is none.
func member(kind btf.Type, name string) (offset uint64, found btf.Type) {
	var members []btf.Member
	switch s := btf.UnderlyingType(kind).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		at := uint64(m.Offset.Bytes())
		if m.Name == name {
			return at, m.Type
		}
		if m.Name == "" {
			if inner, found := member(m.Type, name); found != nil {
				return at + inner, found
			}
		}
	}
	return 0, nil
}
