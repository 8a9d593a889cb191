package holders

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptors looks at the open files of a file table. Nothing is asked of the
// files themselves, whose file system may hang.
func (w *walker) descriptors(t task) {
	err := eachNumber(t.dir, "fdinfo", w.fds, func(fd int) {
		if !w.elsewhere(t, fd) {
			w.descriptor(t, fd)
		}
	})
	if err != nil {
		w.note(t, "fdinfo", err)
	}
}

// elsewhere says whether a file is plainly of no interest, which most are; asking
// that first takes half the time of reading fdinfo. It is not asked where network
// file systems are mounted, which may be consulted about it.
func (w *walker) elsewhere(t task, fd int) bool {
	if len(w.remote) != 0 {
		return false
	}
	where, err := w.file.quickWhere(t.dir, "fd/", fd)
	if err != nil || w.held[where.mount] || w.internal.has(where.mount) {
		return false
	}
	if !w.unknown(where.mount) {
		return true
	}
	return !w.target.isStat(where.dev)
}

func (w *walker) descriptor(t task, fd int) {
	text, err := w.file.quick(t.dir, "fdinfo/", fd)
	if err != nil {
		w.note(t, "fdinfo", err)
		return
	}
	info, err := parseFDInfo(text)
	if err != nil {
		w.note(t, "fdinfo", err)
		return
	}
	switch {
	case w.held[info.mount]:
		w.openFile(t, fd, info, FD)
	case info.mount == w.internal.namespaces:
		w.namespaceFile(t, fd)
	case info.mount == w.internal.sockets:
		w.socket(t, fd, info)
	case info.mount == w.internal.anonymous:
		w.anonymous(t, fd, info)
	case w.unknown(info.mount) && w.isDetached(t, fd, info.mount):
		w.openFile(t, fd, info, DetachedMount)
	}
}

// anonymous looks at files that are no files: each kind shows in fdinfo what it
// is, but for the ones that show nothing.
func (w *walker) anonymous(t task, fd int, info fdInfo) {
	switch {
	case info.extra == "":
		w.fsContext(t, fd)
	case strings.HasPrefix(info.extra, "fanotify "):
		w.fanotify(t, fd, info)
	case strings.Contains(info.extra, "UserFiles:"):
		w.ring(t, fd, info)
	}
}

// internalMounts are the ids of the kernel's own mounts, which are in no
// namespace and the same for all processes.
type internalMounts struct{ namespaces, sockets, anonymous int }

func (m internalMounts) has(id int) bool {
	return id == m.namespaces || id == m.sockets || id == m.anonymous
}

func findInternalMounts() (internalMounts, error) {
	var m internalMounts
	for _, kind := range []struct {
		id   *int
		open func() (int, error)
	}{
		{&m.namespaces, func() (int, error) { return unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0) }},
		{&m.sockets, func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) }},
		{&m.anonymous, func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) }},
	} {
		fd, err := kind.open()
		if err != nil {
			return m, fmt.Errorf("opening an example of a file that is on no mount: %w", err)
		}
		*kind.id, err = mountOfOwn(fd)
		unix.Close(fd)
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// mountOfOwn returns the mount that a file of this process is on.
func mountOfOwn(fd int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("reading the mount of an open file: %w", err)
	}
	info, err := parseFDInfo(text)
	return info.mount, err
}

// isDetached says whether a mount that is in no namespace is of the target. Most
// are the kernel's own, of pipes and sockets; each is asked about once.
func (w *walker) isDetached(t task, fd, mount int) bool {
	ours, asked := w.detached[mount]
	if asked {
		return ours
	}
	where, err := whereIs(t.dir, "fd/"+strconv.Itoa(fd))
	if err != nil {
		w.note(t, "fd", err)
		return false
	}
	if where.mount == mount {
		w.detached[mount] = w.target.isStat(where.dev)
	}
	return w.detached[mount]
}

func (w *walker) openFile(t task, fd int, info fdInfo, class Class) {
	link, err := readLink(t.dir, "fd/"+strconv.Itoa(fd))
	if err != nil {
		w.note(t, "fd", err)
		return
	}
	h := Holder{Class: class, Path: link, Remedy: "close this file descriptor, or end the process",
		Evidence: fmt.Sprintf("%s/fd/%d -> %s (mnt_id %d, flags %s)", t.path, fd, link, info.mount, info.flags)}
	if class == DetachedMount {
		h.Remedy = "close this file descriptor: it keeps a mount that is attached nowhere"
	}
	w.hit(t, h)
}

// fdInfo is what an fdinfo file says; see proc_pid_fdinfo(5).
type fdInfo struct {
	mount int
	flags string // octal, as in open(2)
	inode uint64
	extra string // what the kind of file adds, from the first such line on
}

// parseFDInfo reads the text of an fdinfo file.
func parseFDInfo(text []byte) (fdInfo, error) {
	info := fdInfo{mount: -1}
	rest := text
	for len(rest) > 0 {
		line, after, _ := bytes.Cut(rest, []byte{'\n'})
		if !info.common(line) {
			break
		}
		rest = after
	}
	if info.mount < 0 {
		return fdInfo{}, fmt.Errorf("reading fdinfo: no mnt_id in %q (Linux 3.15 needed)", strings.TrimSpace(string(text)))
	}
	if len(rest) > 0 {
		info.extra = string(rest)
	}
	return info, nil
}

// common reads a line that every kind of file has; false when it is another.
func (i *fdInfo) common(line []byte) bool {
	key, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimSpace(value)
	switch string(key) {
	case "pos":
	case "flags":
		i.flags = string(value)
	case "mnt_id":
		n, ok := decimal(value)
		if ok {
			i.mount = n
		}
		return ok
	case "ino":
		n, err := strconv.ParseUint(string(value), 10, 64)
		i.inode = n
		return err == nil
	default:
		return false
	}
	return true
}
