package holders

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// workersPerCPU is how many goroutines share the processes, for each processor: while one waits for
// a process's lock another one goes on.
const workersPerCPU = 2

// findInProcesses looks at processes for the holders that a process can be: at those that use a file
// system of the target by the kernel's own tables, or at all where these cannot be read.
func findInProcesses(ctx context.Context, s *scan) error {
	t := &tableSearch{scan: s}
	users, err := t.ask()
	if err == nil {
		return t.inspectUsers(ctx, users)
	}
	s.source, s.fallback = FromProc, err.Error()
	var pids []int
	err = eachNumber(s.proc, ".", make([]byte, 64<<10), func(pid int) { pids = append(pids, pid) })
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	s.processes = len(pids)
	return s.inspect(ctx, pids)
}

// inspect looks at the given processes.
func (s *scan) inspect(ctx context.Context, pids []int) error {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(workersPerCPU*runtime.NumCPU(), len(pids)) {
		group.Go(func() {
			w := newWalker(s)
			for i := next.Add(1); i <= int64(len(pids)) && ctx.Err() == nil; i = next.Add(1) {
				w.process(pids[i-1])
			}
			s.collect(w.record)
		})
	}
	group.Wait()
	return ctx.Err()
}

// walker is one worker: it walks through a process, in the order of the kernel's resources. It has
// buffers of its own.
type walker struct {
	scan     *scan
	file     *procFile
	fds      []byte // directory entries
	tasks    []byte
	detached map[int]mounts.DevNum // the mounts that are in no namespace, as far as they were asked about
	target   comparison
	record   record
}

func newWalker(s *scan) *walker {
	file := &procFile{}
	return &walker{scan: s, file: file, fds: make([]byte, 16<<10), tasks: make([]byte, 16<<10), detached: map[int]mounts.DevNum{},
		target: newComparison(s, file), record: record{scan: s, file: file}}
}

// task is the thread, or the process as seen through its first thread, that is being looked at.
type task struct {
	pid, tid int
	dir      int // its directory in /proc, as a place
}

// path returns the task's directory for people.
func (t task) path() string {
	if t.tid != t.pid {
		return fmt.Sprintf("/proc/%d/task/%d", t.pid, t.tid)
	}
	return fmt.Sprintf("/proc/%d", t.pid)
}

// process looks at one process, at the resources that all threads share once.
func (w *walker) process(pid int) {
	dir, err := rawOpen(w.scan.proc, w.file.numbered("", pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		w.scan.cannot("directory", fmt.Sprintf("/proc/%d", pid), err)
		return
	}
	defer rawClose(dir)
	t := task{pid: pid, tid: pid, dir: dir}
	alive := w.exe(t)
	if !alive && w.isKernelThread(t) {
		return
	}
	if alive { // a zombie holds nothing, but its threads may live
		w.filesystem(t)
		w.descriptors(t)
		w.maps(t)
	}
	if w.hasThreads(t) {
		w.threads(t, alive)
	}
}

// exe looks at the program; without one the task is a kernel thread or a zombie.
func (w *walker) exe(t task) bool {
	err := w.place(t, Exe, "exe", "end this process")
	return !gone(err)
}

// filesystem looks at the directories that threads share by CLONE_FS, and at the namespace.
func (w *walker) filesystem(t task) {
	w.record.note(t, "cwd", w.place(t, Cwd, "cwd", "change this process's working directory, or end it"))
	w.record.note(t, "root", w.place(t, Root, "root", "end this process: it runs in a chroot"))
	w.namespace(t)
	w.network(t)
}

func (w *walker) isKernelThread(t task) bool {
	text, err := w.file.read(t.dir, "stat")
	if err != nil {
		w.record.note(t, "stat", err)
		return gone(err)
	}
	st, err := parseStat(text)
	if err != nil {
		w.record.note(t, "stat", err)
		return false
	}
	return st.flags&flagKThread != 0
}

// hasThreads uses the link count of the task directory, which is two more than the number of
// threads.
func (w *walker) hasThreads(t task) bool {
	if err := rawStatx(t.dir, w.file.named("task"), unix.STATX_NLINK, &w.file.stat); err != nil {
		w.record.note(t, "task", err)
		return false
	}
	return w.file.stat.Nlink != 3
}

// place looks at a link that leads to a place: cwd, root or exe.
func (w *walker) place(t task, class Class, name, remedy string) error {
	if w.target.remoteLink(t, name) {
		return nil
	}
	where, err := w.file.where(t.dir, w.file.named(name))
	if err != nil {
		return err
	}
	if !w.target.has(where, func() string { return t.path() + "/" + name }) {
		return nil
	}
	link, err := readLink(t.dir, name)
	if err != nil {
		return err
	}
	w.record.hit(t, Holder{Class: class, Path: link, Remedy: remedy,
		Evidence: fmt.Sprintf("%s/%s -> %s (mount %d)", t.path(), name, link, where.mount)})
	return nil
}
