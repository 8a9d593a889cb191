package holders

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptors looks at the open files of a file table. Nothing is asked of the files themselves,
// whose file system may hang.
func (w *walker) descriptors(t task) {
	dir, err := rawOpen(t.dir, w.file.named("fd"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		w.record.note(t, "fd", err)
		return
	}
	defer rawClose(dir)
	from, all, err := w.lowest(t, dir)
	if err != nil || all {
		w.record.note(t, "fd", err)
		return
	}
	var unreadable error
	err = eachEntry(dir, w.fds, func(fd int) {
		if fd >= from && unreadable == nil {
			_, unreadable = w.descriptor(t, dir, fd)
		}
	})
	w.record.note(t, "fd", errors.Join(err, unreadable))
}

// lowest looks at the files with the lowest numbers, which mostly are all there are: listing the
// directory costs as much as looking at them. The size of the directory is their number since Linux
// 6.2, and 0 before. It returns the first number that was not looked at, and whether no other is
// left. A file that may not be looked at ends it.
func (w *walker) lowest(t task, dir int) (next int, all bool, err error) {
	const gaps = 2 // how many free numbers below the highest are put up with
	if err := rawStatx(dir, w.file.named("."), unix.STATX_SIZE, &w.file.stat); err != nil {
		return 0, false, nil
	}
	count, seen := int(w.file.stat.Size), 0
	for next = 0; seen < count && next < seen+gaps; next++ {
		there, err := w.descriptor(t, dir, next)
		if err != nil {
			return next, false, err
		}
		if there {
			seen++
		}
	}
	return next, count > 0 && seen >= count, nil
}

// descriptor asks for the mount of a file first: that is half the work of reading fdinfo, and most
// files are plainly of no interest then. It returns whether there is such a file.
func (w *walker) descriptor(t task, dir, fd int) (there bool, err error) {
	where, err := w.mountOf(t, dir, fd)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case w.scan.held[where.mount]:
		w.openFile(t, fd, FD)
	case where.mount == w.scan.internal.namespaces:
		w.namespaceFile(t, fd)
	case where.mount == w.scan.internal.sockets:
		w.socket(t, fd)
	case where.mount == w.scan.internal.anonymous:
		w.anonymous(t, dir, fd)
	case w.target.detached(where, func() string { return fmt.Sprintf("%s/fd/%d", t.path(), fd) }):
		w.openFile(t, fd, DetachedMount)
	}
	return true, nil
}

// mountOf returns where an open file is. Network file systems may be consulted when a link of /proc
// is followed: where there is one, fdinfo is read for the mount, and only a file on no known mount
// is asked about its device.
func (w *walker) mountOf(t task, dir, fd int) (location, error) {
	if len(w.scan.remote) == 0 {
		return w.file.where(dir, w.file.numbered("", fd))
	}
	info, err := w.file.fdInfo(t, fd)
	if err != nil {
		return location{}, err
	}
	if w.scan.internal.has(info.mount) || !w.target.unknown(info.mount) {
		return location{mount: info.mount}, nil
	}
	if _, asked := w.detached[info.mount]; !asked {
		where, err := w.file.where(dir, w.file.numbered("", fd))
		if err != nil || where.mount != info.mount {
			return location{mount: info.mount}, err
		}
		w.detached[info.mount] = where.dev
	}
	return location{info.mount, w.detached[info.mount]}, nil
}

// fdInfo reads the kernel's description of an open file.
func (p *procFile) fdInfo(t task, fd int) (fdInfo, error) {
	text, err := p.quick(t.dir, "fdinfo/", fd)
	if err != nil {
		return fdInfo{}, err
	}
	return parseFDInfo(text)
}

// anonymous looks at files that are no files; the link names their kind.
func (w *walker) anonymous(t task, dir, fd int) {
	link, err := w.file.link(dir, w.file.numbered("", fd))
	if err != nil {
		w.record.note(t, "fd", err)
		return
	}
	var look func(task, int, fdInfo)
	switch string(link) {
	case "anon_inode:[fscontext]":
		look = w.fsContext
	case "anon_inode:[fanotify]":
		look = w.fanotify
	case "anon_inode:[io_uring]":
		look = w.ring
	default:
		return
	}
	info, err := w.file.fdInfo(t, fd)
	if err != nil {
		w.record.note(t, "fdinfo", err)
		return
	}
	look(t, fd, info)
}

// internalMounts are the ids of the kernel's own mounts, which are in no namespace and the same for
// all processes.
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

func (w *walker) openFile(t task, fd int, class Class) {
	info, err := w.file.fdInfo(t, fd)
	if err != nil {
		w.record.note(t, "fdinfo", err)
		return
	}
	link, err := readLink(t.dir, "fd/"+strconv.Itoa(fd))
	if err != nil {
		w.record.note(t, "fd", err)
		return
	}
	h := Holder{Class: class, Path: link, Remedy: "close this file descriptor, or end the process",
		Evidence: fmt.Sprintf("%s/fd/%d -> %s (mnt_id %d, flags %s)", t.path(), fd, link, info.mount, info.flags)}
	if class == DetachedMount {
		h.Remedy = "close this file descriptor: it keeps a mount that is attached nowhere"
	}
	w.record.hit(t, h)
}

// fdInfo is the content of an fdinfo file; see proc_pid_fdinfo(5).
type fdInfo struct {
	mount int
	flags string // octal, as in open(2)
	inode uint64
	extra string // the lines that the kind of file adds
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
