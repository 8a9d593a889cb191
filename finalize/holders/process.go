package holders

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// workersPerCPU is how many goroutines share the processes, for each processor: while one waits for
// a process's lock another one goes on.
const workersPerCPU = 2

// findInProcesses looks at every process for the holders that a process can be.
func findInProcesses(ctx context.Context, s *scan) error {
	var pids []int
	err := eachNumber(s.proc, ".", make([]byte, 64<<10), func(pid int) { pids = append(pids, pid) })
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
			s.collect(w)
		})
	}
	group.Wait()
	return ctx.Err()
}

// walker is one worker, with its buffers.
type walker struct {
	*scan
	file     procFile
	fds      []byte // directory entries
	tasks    []byte
	detached map[int]mounts.DevNum // the mounts that are in no namespace, as far as they were asked about
	found    []Holder
	uses     []socketUse
	// subvolumes are the numbers that stat(2) returns for files on unknown mounts, as far as they
	// were asked about: whether each is of a btrfs of the target.
	subvolumes map[mounts.DevNum]bool
	mapLine    [][]byte // the text by which a line of maps is of the target, " 07:00 "
}

func newWalker(s *scan) *walker {
	w := &walker{scan: s, fds: make([]byte, 16<<10), tasks: make([]byte, 16<<10), detached: map[int]mounts.DevNum{}, subvolumes: map[mounts.DevNum]bool{}}
	for _, d := range s.target.Devices {
		w.mapLine = append(w.mapLine, mapPattern(d))
	}
	return w
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
	dir, err := rawOpen(w.proc, w.file.numbered("", pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		w.cannot("directory", fmt.Sprintf("/proc/%d", pid), err)
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
	w.note(t, "cwd", w.place(t, Cwd, "cwd", "change this process's working directory, or end it"))
	w.note(t, "root", w.place(t, Root, "root", "end this process: it runs in a chroot"))
	w.namespace(t)
	w.network(t)
}

func (w *walker) note(t task, name string, err error) {
	if err != nil {
		w.cannot(name, t.path(), err)
	}
}

func (w *walker) isKernelThread(t task) bool {
	text, err := w.file.read(t.dir, "stat")
	if err != nil {
		w.note(t, "stat", err)
		return gone(err)
	}
	st, err := parseStat(text)
	if err != nil {
		w.note(t, "stat", err)
		return false
	}
	return st.flags&flagKThread != 0
}

// hasThreads uses the link count of the task directory, which is two more than the number of
// threads.
func (w *walker) hasThreads(t task) bool {
	if err := rawStatx(t.dir, w.file.named("task"), unix.STATX_NLINK, &w.file.stat); err != nil {
		w.note(t, "task", err)
		return false
	}
	return w.file.stat.Nlink != 3
}

// place looks at a link that leads to a place: cwd, root or exe.
func (w *walker) place(t task, class Class, name, remedy string) error {
	if w.remoteLink(t, name) {
		return nil
	}
	where, err := w.file.where(t.dir, w.file.named(name))
	if err != nil {
		return err
	}
	held := w.held[where.mount]
	if !held && w.unknown(where.mount) {
		held = w.target.isStat(where.dev) || w.ofBtrfs(t.path()+"/"+name, where.dev)
	}
	if !held {
		return nil
	}
	link, err := readLink(t.dir, name)
	if err != nil {
		return err
	}
	w.hit(t, Holder{Class: class, Path: link, Remedy: remedy,
		Evidence: fmt.Sprintf("%s/%s -> %s (mount %d)", t.path(), name, link, where.mount)})
	return nil
}

func (w *walker) unknown(mount int) bool {
	_, known := w.known[mount]
	return !known
}

// hit completes a holder with the task it was found at.
func (w *walker) hit(t task, h Holder) {
	h.PID, h.TID = t.pid, t.tid
	h.Self, h.Child = t.pid == os.Getpid(), t.pid != os.Getpid() && w.family[t.pid]
	h.Comm = w.comm(t)
	w.found = append(w.found, h)
}

func (w *walker) comm(t task) string {
	text, err := w.file.read(t.dir, "comm")
	if err != nil {
		return "?"
	}
	return strings.TrimSuffix(string(text), "\n")
}

// location is the mount and device that a link of /proc leads to.
type location struct {
	mount int
	dev   mounts.DevNum
}

// isRemote names the file systems that may ask a server when a link of /proc is followed to them
// (d_weak_revalidate in the kernel).
func isRemote(fsType string) bool {
	switch fsType {
	case "nfs", "nfs4", "9p", "cifs", "smb3", "ceph", "afs":
		return true
	}
	return false
}

// remoteLink reports whether a link shows a path on a network file system, which is no target and
// must not be followed. It costs nothing where there is none.
func (w *walker) remoteLink(t task, name string) bool {
	if len(w.remote) == 0 {
		return false
	}
	link, err := readLink(t.dir, name)
	if err != nil {
		return false // following it will say why
	}
	for _, points := range w.remote {
		for _, point := range points {
			if mounts.Inside(link, point) {
				return true
			}
		}
	}
	return false
}
