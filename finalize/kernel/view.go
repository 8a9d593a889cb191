package kernel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// View reads who uses a file system, from the kernel's tables of all processes, in whatever PID
// namespace they are.
type View struct {
	*tables
	tasks
	examples examples
	counts   bool // see tryCounts
}

// Kind is a way to use a file system.
type Kind string

// The kinds, by the names that the report on holders has for them.
const (
	FD            Kind = "fd"             // an open file
	DetachedMount Kind = "detached-mount" // an open file on a mount in no namespace
	Map           Kind = "map"            // a mapped file
	Cwd           Kind = "cwd"            // a working directory
	Root          Kind = "root"           // a root directory
	Exe           Kind = "exe"            // a running program
	Namespace     Kind = "namespace"      // a mount namespace with a mount of the file system
	FSContext     Kind = "fs-context"     // an fs context, see fspick(2)
	InFlight      Kind = "in-flight"      // an open file under way in a socket
	Fanotify      Kind = "fanotify"       // a fanotify group with unread events
	IOUring       Kind = "io-uring"       // files registered in an io_uring
	UnixSocket    Kind = "unix-socket"    // a socket bound to a name
)

// Use is one use of a file system by a thread.
type Use struct {
	Kind Kind
	// Process and Thread are the numbers in the first PID namespace; Thread is 0 when the use is
	// the whole process's.
	Process, Thread int
	// Here and HereThread are the numbers in the own PID namespace, 0 where it has none.
	Here, HereThread int
	Command          string
	FD               int           // of an open file, a namespace, an fs context, a socket; else -1
	Device           mounts.DevNum // of the file system, as in mountinfo
	Mount            Mount         // the mount that is used; of a namespace, one that is in it
	Path             string        // from the root of the mount; it ends in " (deleted)" if the name is gone
}

// OpenView loads the programs that read the tables. Close unloads them: they are nowhere but in
// this process.
func OpenView() (*View, error) {
	v, err := openView()
	if err != nil {
		return nil, fmt.Errorf("opening the kernel's own tables: %w", err)
	}
	return v, nil
}

func openView() (_ *View, err error) {
	t := &tables{}
	v := &View{tables: t, tasks: tasks{tables: t}}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.layout, err = kernelLayout(); err != nil {
		return nil, err
	}
	if v.memory, err = openMemory(); err != nil {
		return nil, err
	}
	if v.reader, err = openReader(); err != nil {
		return nil, err
	}
	if err := v.findProcessors(); err != nil {
		return nil, err
	}
	if v.counts, err = v.tryCounts(); err != nil {
		return nil, err
	}
	if err := v.findExamples(); err != nil {
		return nil, err
	}
	return v, v.numbering()
}

// Close unloads the programs.
func (v *View) Close() {
	if v.memory != nil {
		v.memory.close()
	}
	if v.reader != nil {
		v.reader.close()
	}
}

// examples are objects by which others of their kind are known.
type examples struct {
	anonymous, namespaces, sockets uint64 // the mounts of files that are no files
}

func (v *View) findExamples() error {
	for _, example := range []struct {
		mount *uint64
		open  func() (int, error)
	}{
		{&v.examples.namespaces, func() (int, error) { return unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0) }},
		{&v.examples.sockets, func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) }},
		{&v.examples.anonymous, func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) }},
	} {
		fd, err := example.open()
		if err != nil {
			return fmt.Errorf("opening an example of a file: %w", err)
		}
		*example.mount, err = v.mountOfFile(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// mountOfFile returns the mount of an own file, by the address that files have it by.
func (v *View) mountOfFile(fd int) (uint64, error) {
	at, err := v.mountOf(fd)
	return at + v.mount.inner.offset, err
}

// wanted is the file systems that uses are looked for.
type wanted struct {
	mounts      map[uint64]wantedMount   // by the address of the part that files refer to
	namespaces  map[uint64][]wantedMount // those but the own one with a mount that would stay, one of each file system
	superblocks map[uint64]mounts.DevNum
	// used says that there are references: to the mounts, or to the superblocks beyond those of mounts
	// that go with one of the own namespace.
	used bool
}

type wantedMount struct {
	Mount
	device mounts.DevNum
}

// Users are the uses of file systems.
type Users struct {
	Uses []Use
	// Processes is how many processes there are.
	Processes int
	// Unused says that no reference to the file systems is counted, so that no process was looked at.
	Unused bool
	// Unsettled are processes that changed each time that they were read.
	Unsettled []Process
	// Sockets are the inodes of all unix sockets that a process has open.
	Sockets []uint64
	// Deserted has the other namespaces with mounts of the file systems that no process is in or has
	// open.
	Deserted []Use
}

// Process is a process by its numbers in the first PID namespace and in the own one, see Use.
type Process struct{ Process, Here int }

// UsesOf returns the uses of the file systems with the given numbers, as in mountinfo, whether they
// are mounted somewhere or not. A number without a superblock has none.
func (v *View) UsesOf(devices ...mounts.DevNum) (Users, error) {
	users, err := settled(func() (Users, error) { return v.usesOf(devices) })
	if err != nil {
		return Users{}, fmt.Errorf("reading the kernel's own tables: %w", err)
	}
	return users, nil
}

func (v *View) usesOf(devices []mounts.DevNum) (Users, error) {
	supers, err := v.superblocksOf(devices...)
	if err != nil {
		return Users{}, err
	}
	w := wanted{mounts: map[uint64]wantedMount{}, namespaces: map[uint64][]wantedMount{}, superblocks: map[uint64]mounts.DevNum{}}
	for _, super := range supers {
		if err := v.wantSuperblock(&w, super); err != nil {
			return Users{}, err
		}
	}
	if v.counts && !w.used {
		n, err := v.countProcesses()
		return Users{Processes: n, Unused: true}, err
	}
	return v.users(w)
}

func (v *View) users(w wanted) (u Users, err error) {
	for range rounds {
		var lost bool
		if u, lost, err = v.usersOnce(w); err != nil || !lost {
			return u, err
		}
	}
	return u, err
}

// usersOnce looks at all threads, and again at those that use the file systems. lost says that a use
// was not there any more: it may have gone to another process meanwhile, by fork(2).
func (v *View) usersOnce(w wanted) (u Users, lost bool, err error) {
	threads, changed, err := v.threads()
	if err != nil {
		return u, false, err
	}
	first := v.newSearch(w)
	hits, err := first.among(threads)
	if err != nil {
		return u, false, err
	}
	for _, t := range changed {
		first.changed(t)
	}
	u.Sockets = slices.Collect(maps.Keys(first.inodes))
	for _, t := range threads {
		if t.id == t.process {
			u.Processes++
		}
	}
	if len(hits) > 0 || len(first.unsettled) > 0 {
		lost, err = v.confirm(&u, hits, first)
	}
	u.Deserted = w.deserted(u.Uses)
	return u, lost, err
}

// deserted returns the namespaces that none of the uses is of.
func (w wanted) deserted(uses []Use) []Use {
	inhabited := map[uint64]bool{}
	for _, u := range uses {
		if u.Kind == Namespace {
			inhabited[u.Mount.Namespace] = true
		}
	}
	var list []Use
	for object, inside := range w.namespaces {
		if !inhabited[inside[0].Namespace] {
			list = append(list, w.of(Use{Kind: Namespace, FD: -1}, object)...)
		}
	}
	slices.SortFunc(list, func(a, b Use) int { return cmp.Compare(a.Mount.ID, b.Mount.ID) })
	return list
}

func (v *View) newSearch(w wanted) *search {
	return &search{tables: v.tables, wanted: w, examples: v.examples, unsettled: map[thread]bool{}, inodes: map[uint64]bool{}}
}

// left returns the processes of the threads that could not be read.
func (v *View) left(unsettled map[thread]bool, leaders map[int]thread) ([]Process, error) {
	var list []Process
	for t := range unsettled {
		here, err := v.here(leaders[t.process])
		if err != nil {
			return nil, err
		}
		if p := (Process{t.process, here}); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list, nil
}

// wantSuperblock adds a file system.
func (v *View) wantSuperblock(w *wanted, super uint64) error {
	number, err := v.value(super, v.super.device)
	if err != nil {
		return err
	}
	device := deviceNumber(number)
	w.superblocks[super] = device
	own, err := v.ownNamespace()
	if err != nil {
		return err
	}
	list, err := v.mountsOf(super)
	if err != nil {
		return err
	}
	active, err := v.value(super, v.super.active)
	if err != nil {
		return err
	}
	w.used = w.used || int(active) != len(list)
	namespaces, err := v.reader.values(list, v.mount.namespace)
	if err != nil {
		return err
	}
	var here []uint64
	for i, at := range list {
		if namespaces[i] == own {
			here = append(here, at)
		}
	}
	for i, at := range list {
		m, err := v.readMount(at)
		if err != nil {
			return err
		}
		if m.Namespace != 0 && namespaces[i] != own {
			for k := 0; k < len(here) && !m.Follows; k++ {
				if m.Follows, err = v.follows(at, here[k]); err != nil {
					return err
				}
			}
			if inside := w.namespaces[namespaces[i]]; !m.Follows && (len(inside) == 0 || inside[len(inside)-1].device != device) {
				w.namespaces[namespaces[i]] = append(inside, wantedMount{m, device}) // one is enough
			}
		}
		w.mounts[at+v.mount.inner.offset] = wantedMount{m, device}
		w.used = w.used || m.Namespace == 0 || m.Uses != 0 || len(w.namespaces) > 0
	}
	again, err := v.mountsOf(super)
	if err == nil && !slices.Equal(again, list) {
		err = errChanged
	}
	return err
}

// ownNamespace returns the address of the mount namespace of this process.
func (v *View) ownNamespace() (uint64, error) {
	task, err := v.memory.task()
	if err != nil {
		return 0, err
	}
	leader, err := v.memory.follow(task, v.task.leader.offset)
	if err != nil {
		return 0, err
	}
	return v.memory.follow(leader, v.task.namespaces.offset, v.task.mountNamespace.offset)
}

// found is a use as it was read.
type found struct {
	kind   Kind
	thread thread
	owner  openFile // the file that is or has it, if there is one
	mount  uint64   // or the namespace, or the superblock of an fs context
	entry  uint64   // the directory entry, 0 if there is none
}

// ofProcess is the use without the thread of the process by which it was found.
func (f found) ofProcess() found {
	f.thread = thread{process: f.thread.process}
	return f
}

// confirm reads again the processes that use the file systems, or that changed when they were read
// first: what it saw may have been memory of a process that ended meanwhile.
func (v *View) confirm(u *Users, hits []found, first *search) (lost bool, err error) {
	seen, again, unsettled := map[found]bool{}, map[int]bool{}, map[int]bool{}
	for _, f := range hits {
		seen[f.ofProcess()], again[f.thread.process] = true, true
	}
	for t := range first.unsettled {
		again[t.process], unsettled[t.process] = true, true
	}
	threads, changed, err := v.threads()
	if err != nil {
		return false, err
	}
	leaders := map[int]thread{}
	var users []thread
	for _, t := range threads {
		if t.process == t.id {
			leaders[t.process] = t
		}
		if again[t.process] {
			users = append(users, t)
		}
	}
	second := v.newSearch(first.wanted)
	more, err := second.among(users)
	if err != nil {
		return false, err
	}
	for _, t := range changed {
		second.changed(t)
	}
	gone := maps.Clone(seen)
	for _, f := range more {
		delete(gone, f.ofProcess())
		if !seen[f.ofProcess()] && !unsettled[f.thread.process] {
			continue
		}
		use, err := v.describe(f, leaders[f.thread.process])
		if err != nil {
			second.changed(f.thread)
			continue
		}
		u.Uses = append(u.Uses, first.of(use, f.mount)...)
	}
	slices.SortStableFunc(u.Uses, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Process, b.Process), cmp.Compare(a.Thread, b.Thread))
	})
	u.Unsettled, err = v.left(second.unsettled, leaders)
	return len(gone) > 0, err
}

// describe completes a use for people.
func (v *View) describe(f found, leader thread) (Use, error) {
	u := Use{Kind: f.kind, Process: f.thread.process, FD: -1}
	if f.owner.at != 0 {
		u.FD = f.owner.fd
	}
	var err error
	if u.Here, err = v.here(leader); err != nil {
		return u, err
	}
	if f.thread.id != f.thread.process {
		u.Thread = f.thread.id
		if u.HereThread, err = v.here(f.thread); err != nil {
			return u, err
		}
	}
	if u.Command, err = v.command(f.thread); err != nil {
		return u, err
	}
	if f.entry != 0 {
		u.Path, err = v.path(f.entry)
	}
	return u, err
}

// of completes a use by the file system: a namespace may have mounts of several.
func (w wanted) of(u Use, object uint64) []Use {
	switch u.Kind {
	case Namespace:
		var list []Use
		for _, m := range w.namespaces[object] {
			u.Mount, u.Device = m.Mount, m.device
			list = append(list, u)
		}
		return list
	case FSContext:
		u.Device = w.superblocks[object]
		return []Use{u}
	}
	m := w.mounts[object]
	u.Mount, u.Device = m.Mount, m.device
	if u.Kind == FD && m.Namespace == 0 {
		u.Kind = DetachedMount
	}
	return []Use{u}
}
