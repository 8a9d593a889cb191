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
	task   taskLayout
	files  struct{ table, list, most, mount, entry, private, operations, inode, object, number field }
	fs     struct{ root, rootEntry, cwd, cwdEntry field }
	space  spaceLayout
	entry  struct{ parent, name, hashed, superblock field }
	held   heldLayout
	socket socketLayout
	mount  struct {
		inner, superblock, root, flags, next, counts, id, unique, children, sibling, namespace field
		parent, point, group, master                                                           field
	}
	super  struct{ mounts, active, frozen, next, device, count, flags, root, uuid, kind, kindName, freezes, kernelFreezes field }
	inode  field // of a mount namespace
	common field // of a mount namespace: the part that all kinds of namespaces have
	count  field // of one processor's counts of a mount
	// given counts the references to a mount that were given back, since Linux 7: count has only those
	// that were taken.
	given field
	array field // of the values of a BPF map that has some for each processor
}

// taskLayout has the fields of a thread, and of the structures that it leads to.
type taskLayout struct {
	next, leader, thread, signal, threads, threadCount field
	process, id, started, name, flags                  field
	files, fs, space, namespaces, mountNamespace       field
	pid, level, numbers, numbered                      field
	numberSize                                         int
}

// heldLayout has the fields of files that hold others.
type heldLayout struct {
	contextRoot                           field
	events, event, eventMount, eventEntry field
	// Each slot of ringFiles leads to a file, or to a node that has ringFile.
	ringCount, ringFiles, ringFile field
}

// socketLayout has the fields of unix sockets, and of messages to them.
type socketLayout struct {
	inner, family, state, queue, queued, nameMount, nameEntry field
	sender, passed, passedCount, passedFiles                  field // of a message
}

// spaceLayout has the fields of an address space. Its mappings are in a maple tree since Linux 6.1,
// and before in a list.
type spaceLayout struct {
	program, tree, first, count           field
	owner, next, file                     field // of a mapping
	leafBounds, leaves, bounds, innerTree field // of the nodes of the tree
}

// structures are those that the layout has fields of.
var structures = []string{
	"task_struct", "signal_struct", "nsproxy", "pid", "upid", "files_struct", "fdtable", "file", "inode", "fs_struct",
	"dentry", "mount", "mnt_namespace", "super_block", "sb_writers", "file_system_type", "fs_context", "fsnotify_group",
	"fsnotify_event", "fanotify_path_event", "io_ring_ctx", "io_file_table", "io_rsrc_node", "mnt_pcp", "socket", "sock", "unix_sock",
	"sk_buff", "unix_skb_parms", "scm_fp_list", "mm_struct", "vm_area_struct", "maple_range_64", "maple_arange_64", "bpf_array",
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
	l.readTask(t)
	l.readFiles(t)
	l.readSpace(t)
	l.readHeld(t)
	l.readSockets(t)
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
	l.common = t.field("mnt_namespace", "ns")
	l.mount.id = t.field("mount", "mnt_id")
	if t.has("mount", "mnt_id_unique") { // since Linux 6.8
		l.mount.unique = t.field("mount", "mnt_id_unique")
	}
	l.readSuper(t)
	next := "mnt_instance"
	if l.super.mounts.pointer { // since Linux 6.18
		next = "mnt_next_for_sb"
	}
	l.mount.next = t.field("mount", next)
	l.array = t.field("bpf_array", "pptrs")
	return l, t.err
}

func (l *layout) readSuper(t *types) {
	l.super.active, l.super.frozen = t.field("super_block", "s_active", "counter"), t.field("super_block", "s_writers", "frozen")
	l.super.mounts = t.field("super_block", "s_mounts")
	l.super.next, l.super.device = t.field("super_block", "s_list"), t.field("super_block", "s_dev")
	l.super.flags = t.field("super_block", "s_flags")
	for _, name := range []string{"s_count", "s_passive"} { // since Linux 7 the latter
		if t.has("super_block", name) {
			l.super.count = t.field("super_block", name)
		}
	}
	l.super.root, l.super.uuid = t.field("super_block", "s_root"), t.field("super_block", "s_uuid")
	if t.has("sb_writers", "freeze_ucount") { // since Linux 6.6
		l.super.freezes, l.super.kernelFreezes = t.field("super_block", "s_writers", "freeze_ucount"), t.field("super_block", "s_writers", "freeze_kcount")
	}
	l.super.kind, l.super.kindName = t.field("super_block", "s_type"), t.field("file_system_type", "name")
}

func (l *layout) readTask(t *types) {
	k := &l.task
	k.next, k.leader, k.thread = t.field("task_struct", "tasks"), t.field("task_struct", "group_leader"), t.field("task_struct", "thread_node")
	k.signal, k.threads = t.field("task_struct", "signal"), t.field("signal_struct", "thread_head")
	k.threadCount = t.field("signal_struct", "nr_threads")
	k.process, k.id = t.field("task_struct", "tgid"), t.field("task_struct", "pid")
	k.started, k.name, k.flags = t.field("task_struct", "start_time"), t.field("task_struct", "comm"), t.field("task_struct", "flags")
	k.files, k.fs, k.space = t.field("task_struct", "files"), t.field("task_struct", "fs"), t.field("task_struct", "mm")
	k.namespaces, k.mountNamespace = t.field("task_struct", "nsproxy"), t.field("nsproxy", "mnt_ns")
	k.pid, k.level, k.numbers = t.field("task_struct", "thread_pid"), t.field("pid", "level"), t.field("pid", "numbers")
	k.numbered, k.numberSize = t.field("upid", "ns"), t.structSize("upid")
}

func (l *layout) readFiles(t *types) {
	f := &l.files
	f.table, f.list, f.most = t.field("files_struct", "fdt"), t.field("fdtable", "fd"), t.field("fdtable", "max_fds")
	f.mount, f.entry = t.field("file", "f_path", "mnt"), t.field("file", "f_path", "dentry")
	f.private, f.operations = t.field("file", "private_data"), t.field("file", "f_op")
	f.inode, f.object, f.number = t.field("file", "f_inode"), t.field("inode", "i_private"), t.field("inode", "i_ino")
	l.fs.root, l.fs.rootEntry = t.field("fs_struct", "root", "mnt"), t.field("fs_struct", "root", "dentry")
	l.fs.cwd, l.fs.cwdEntry = t.field("fs_struct", "pwd", "mnt"), t.field("fs_struct", "pwd", "dentry")
	l.entry.parent, l.entry.name = t.field("dentry", "d_parent"), t.field("dentry", "d_name", "name")
	l.entry.hashed, l.entry.superblock = t.field("dentry", "d_hash", "pprev"), t.field("dentry", "d_sb")
}

func (l *layout) readHeld(t *types) {
	h := &l.held
	h.contextRoot = t.field("fs_context", "root")
	h.events, h.event = t.field("fsnotify_group", "notification_list"), t.field("fsnotify_event", "list")
	h.eventMount, h.eventEntry = t.field("fanotify_path_event", "path", "mnt"), t.field("fanotify_path_event", "path", "dentry")
	if t.has("io_file_table", "data") { // since Linux 6.13
		h.ringCount, h.ringFiles = t.field("io_ring_ctx", "file_table", "data", "nr"), t.field("io_ring_ctx", "file_table", "data", "nodes")
		h.ringFile = t.field("io_rsrc_node", "file_ptr")
	} else {
		h.ringCount, h.ringFiles = t.field("io_ring_ctx", "nr_user_files"), t.field("io_ring_ctx", "file_table", "files")
	}
}

func (l *layout) readSockets(t *types) {
	s := &l.socket
	s.inner, s.family = t.field("socket", "sk"), t.field("sock", "__sk_common", "skc_family")
	s.state = t.field("sock", "__sk_common", "skc_state")
	s.queue, s.queued = t.field("sock", "sk_receive_queue"), t.field("sock", "sk_receive_queue", "qlen")
	s.nameMount, s.nameEntry = t.field("unix_sock", "path", "mnt"), t.field("unix_sock", "path", "dentry")
	s.sender, s.passed = t.field("sk_buff", "sk"), t.field("unix_skb_parms", "fp")
	s.passed.offset += t.field("sk_buff", "cb").offset
	s.passedCount, s.passedFiles = t.field("scm_fp_list", "count"), t.field("scm_fp_list", "fp")
}

func (l *layout) readSpace(t *types) {
	s := &l.space
	s.program, s.count = t.field("mm_struct", "exe_file"), t.field("mm_struct", "map_count")
	s.owner, s.file = t.field("vm_area_struct", "vm_mm"), t.field("vm_area_struct", "vm_file")
	if !t.has("mm_struct", "mm_mt") {
		s.first, s.next = t.field("mm_struct", "mmap"), t.field("vm_area_struct", "vm_next")
		return
	}
	s.tree = t.field("mm_struct", "mm_mt", "ma_root")
	s.leafBounds, s.leaves = t.field("maple_range_64", "pivot"), t.field("maple_range_64", "slot")
	s.bounds, s.innerTree = t.field("maple_arange_64", "pivot"), t.field("maple_arange_64", "slot")
}
