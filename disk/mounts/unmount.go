package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Point is a mount point: a name in a directory that is held open as a place. Holding the directory
// does not make the mount on the name busy, but does make the mount that carries it so: close it
// before that one's turn.
type Point struct {
	dir   int
	name  string
	mount Mount
}

// OpenPoint opens the directory that m stands in, following no symlink in any component, and checks
// that the mount on top of its name is m.
func OpenPoint(m Mount) (*Point, error) {
	if m.Point == "/" || m.Point == "" {
		return nil, fmt.Errorf("opening the mount point %q: the root of a namespace stands in no directory", m.Point)
	}
	dir, err := openPath("/", path.Dir(m.Point))
	if err != nil {
		return nil, err
	}
	p := &Point{dir: dir, name: path.Base(m.Point), mount: m}
	if err := p.check(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives the directory back.
func (p *Point) Close() { unix.Close(p.dir) }

func (p *Point) path() string { return fmt.Sprintf("/proc/self/fd/%d/%s", p.dir, p.name) }

// check compares the mount that the name leads to now with the one meant.
func (p *Point) check() error {
	id, unique, err := mountAt(p.dir, p.name)
	if err != nil {
		return fmt.Errorf("looking at the mount point %s: %w", p.mount.Point, err)
	}
	if id != p.mount.ID || (p.mount.Unique != 0 && unique != 0 && unique != p.mount.Unique) {
		return fmt.Errorf("looking at the mount point %s: mount %d is there, not mount %d (covered, moved or replaced by someone)",
			p.mount.Point, id, p.mount.ID)
	}
	return nil
}

// Unmount unmounts with exactly one umount2, by name relative to the directory. It is never lazy:
// EBUSY is returned as it is.
func (p *Point) Unmount() error { return p.unmount(p.path()) }

func (p *Point) unmount(path string) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
		return &Error{Op: "umount2", Source: p.mount.Source, Target: p.mount.Point, Flags: "UMOUNT_NOFOLLOW", Err: err}
	}
	return nil
}

// here calls f with a path to the mount that needs no /proc: relative to the working directory,
// which must be the calling thread's own, and is the namespace's root afterwards.
func (p *Point) here(f func(path string) error) (err error) {
	if err := unix.Fchdir(p.dir); err != nil {
		return fmt.Errorf("entering the directory around %s: %w", p.mount.Point, err)
	}
	defer func() {
		if back := unix.Chdir("/"); back != nil {
			err = errors.Join(err, fmt.Errorf("leaving the directory around %s: %w", p.mount.Point, back))
		}
	}()
	return f("./" + p.name)
}

// Unmount unmounts m by its name in its parent directory; see Point.
func Unmount(m Mount) error {
	p, err := OpenPoint(m)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Unmount()
}

// IDAt returns the mount that a path leads to, as the id that mountinfo shows and, where the kernel
// has one, the id that is never reused. A symlink in the last component is not followed.
func IDAt(path string) (id int, unique uint64, err error) {
	id, unique, err = mountAt(unix.AT_FDCWD, path)
	if err != nil {
		return 0, 0, fmt.Errorf("finding the mount of a path: %w", err)
	}
	return id, unique, nil
}

// mountAt asks for nothing that a hung file system would have to answer.
func mountAt(dir int, name string) (id int, unique uint64, err error) {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags, unix.STATX_MNT_ID, &st); err != nil {
		if id, ok := mountOfDead(dir, name); ok {
			return id, 0, nil
		}
		return 0, 0, &os.PathError{Op: "statx", Path: name, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, 0, fmt.Errorf("statx %s: the kernel returns no mount id (Linux 5.8 needed)", name)
	}
	id = int(st.Mnt_id)
	err = unix.Statx(dir, name, flags, unix.STATX_MNT_ID_UNIQUE, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return id, 0, nil // before Linux 6.8
	}
	return id, st.Mnt_id, nil
}

// mountOfDead is mountAt for a file system that answers nothing any more, such as one that was shut
// down after a write error: a descriptor that is a place only has a mount, too (proc_pid_fdinfo(5),
// mnt_id).
func mountOfDead(dir int, name string) (id int, ok bool) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(info)) {
		if n, err := fmt.Sscanf(line, "mnt_id: %d", &id); n == 1 && err == nil {
			return id, true
		}
	}
	return 0, false
}

// At returns the mount whose mount point is path in the calling thread's namespace, the topmost
// when several are stacked there.
func At(path string) (Mount, error) {
	list, err := OwnMounts()
	if err != nil {
		return Mount{}, err
	}
	id, unique, err := IDAt(path)
	if err != nil {
		return Mount{}, err
	}
	m, ok := Find(list, id)
	if !ok {
		return Mount{}, fmt.Errorf("finding the mount at %s: mount %d is not in this namespace's mountinfo", path, id)
	}
	if m.Point != path {
		return Mount{}, fmt.Errorf("finding the mount at %s: it is not a mount point, but lies on the mount at %s", path, m.Point)
	}
	m.Unique = unique
	return m, nil
}
