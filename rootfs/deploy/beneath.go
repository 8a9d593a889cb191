package deploy

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// noLinks lets a path be resolved beneath its directory only, through no symbolic link.
const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS

// dir is an open directory of the target. Every path given to its methods is relative to it.
type dir struct {
	fd       int
	name     string // relative to the physical root, for messages and the ledger
	ledger   Ledger
	released func() // nil for the physical root, which belongs to the caller
}

// rootDir wraps the caller's descriptor, which stays the caller's to close.
func rootDir(root *os.File, l Ledger) *dir {
	return &dir{fd: int(root.Fd()), ledger: l}
}

func (d *dir) full(name string) string { return path.Join(d.name, name) }

func (d *dir) fail(op, name string, err error) error {
	return &os.PathError{Op: op, Path: "/" + d.full(name), Err: err}
}

// rawOpen opens name with the flags; resolve are RESOLVE_ bits. The caller closes the descriptor and calls released.
func (d *dir) rawOpen(name string, flags int, mode, resolve uint64) (fd int, released func(), err error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode, Resolve: resolve}
	fd, err = unix.Openat2(d.fd, name, &how)
	for err == unix.EINTR {
		fd, err = unix.Openat2(d.fd, name, &how)
	}
	if err != nil {
		return -1, nil, d.fail("open", name, err)
	}
	return fd, d.ledger.Opened("fd", d.full(name)), nil
}

// openat2 is rawOpen with one function to give everything back.
func (d *dir) openat2(name string, flags int, mode, resolve uint64) (fd int, closeFD func() error, err error) {
	fd, released, err := d.rawOpen(name, flags, mode, resolve)
	if err != nil {
		return -1, nil, err
	}
	return fd, func() error {
		err := unix.Close(fd)
		released()
		return err
	}, nil
}

// sub opens a directory. The caller closes it.
func (d *dir) sub(name string) (*dir, error) {
	fd, closeFD, err := d.openat2(name, unix.O_RDONLY|unix.O_DIRECTORY, 0, noLinks)
	if err != nil {
		return nil, err
	}
	return &dir{fd: fd, name: d.full(name), ledger: d.ledger, released: func() { _ = closeFD() }}, nil
}

// close gives a directory back; nothing was written through it that its close could still lose.
func (d *dir) close() { d.released() }

// with opens a directory for the time of fn.
func (d *dir) with(name string, fn func(*dir) error) error {
	s, err := d.sub(name)
	if err != nil {
		return err
	}
	defer s.close()
	return fn(s)
}

// mkdirAll creates the directories of the path that are missing, with exactly this mode whatever the umask.
func (d *dir) mkdirAll(name string, mode uint32) error {
	done := ""
	for part := range strings.SplitSeq(name, "/") {
		done = path.Join(done, part)
		if err := d.mkdir(done, mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// mkdir creates one directory with exactly this mode.
func (d *dir) mkdir(name string, mode uint32) error {
	return d.at(name, func(parent int, base string) error {
		if err := unix.Mkdirat(parent, base, mode); err != nil {
			return d.fail("mkdir", name, err)
		}
		return d.failIf("chmod", name, unix.Fchmodat(parent, base, mode, 0))
	})
}

// at calls fn with a descriptor of the directory that holds name, and name's last part.
func (d *dir) at(name string, fn func(parent int, base string) error) error {
	parent, base := path.Split(name)
	if parent == "" {
		return fn(d.fd, base)
	}
	return d.with(strings.TrimSuffix(parent, "/"), func(p *dir) error { return fn(p.fd, base) })
}

func (d *dir) failIf(op, name string, err error) error {
	if err != nil {
		return d.fail(op, name, err)
	}
	return nil
}

// writeFile creates a file, which must not be there, with exactly this mode.
func (d *dir) writeFile(name string, data []byte, mode uint32) error {
	fd, closeFD, err := d.openat2(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint64(mode), noLinks)
	if err != nil {
		return err
	}
	if err = unix.Fchmod(fd, mode); err == nil {
		_, err = fdWriter(fd).Write(data)
	}
	return d.failIf("write", name, errors.Join(err, closeFD()))
}

// symlink makes name point to target, in place of what name is, in one step.
func (d *dir) symlink(target, name string) error {
	return d.at(name, func(parent int, base string) error {
		tmp := base + ".tmp"
		if err := unix.Symlinkat(target, parent, tmp); err != nil {
			return d.fail("symlink", name, err)
		}
		return d.failIf("rename", name, unix.Renameat(parent, tmp, parent, base))
	})
}

// remove deletes a file, or an empty directory when isDir is set. What is not there is no error.
func (d *dir) remove(name string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	err := d.at(name, func(parent int, base string) error {
		return d.failIf("remove", name, unix.Unlinkat(parent, base, flags))
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// syncfs writes out the file system that the directory is on.
func (d *dir) syncfs() error { return d.failIf("syncfs", ".", unix.Syncfs(d.fd)) }

// stat tells what name is, without following it if it is a symbolic link; exists is false where nothing is.
func (d *dir) stat(name string) (st unix.Stat_t, exists bool, err error) {
	err = d.at(name, func(parent int, base string) error {
		return d.failIf("stat", name, unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW))
	})
	if errors.Is(err, os.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
}

// isKind tells whether name is there and of the file type (S_IFREG, ...).
func (d *dir) isKind(name string, kind uint32) (bool, error) {
	st, exists, err := d.stat(name)
	return exists && st.Mode&unix.S_IFMT == kind, err
}

// names lists the directory name in byte order.
func (d *dir) names(name string) ([]string, error) {
	fd, closeFD, err := d.openat2(name, unix.O_RDONLY|unix.O_DIRECTORY, 0, noLinks)
	if err != nil {
		return nil, err
	}
	defer closeFD()
	entries, err := readEntries(fd)
	return entries, d.failIf("list", name, err)
}

// asFile lends the directory as an *os.File, on a descriptor of its own that is closed after fn.
func (d *dir) asFile(fn func(*os.File) error) error {
	fd, released, err := d.rawOpen(".", unix.O_RDONLY|unix.O_DIRECTORY, 0, noLinks)
	if err != nil {
		return err
	}
	defer released()
	f := os.NewFile(uintptr(fd), d.name)
	defer f.Close()
	return fn(f)
}
