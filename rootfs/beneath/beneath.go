package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// NoLinks lets a path be resolved beneath its directory only, through no symbolic link.
const NoLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS

// Dir is an open directory of the target. Every path that its methods take is relative to it.
type Dir struct {
	fd       int
	name     string // relative to the physical root, for messages and the ledger
	ledger   Ledger
	released func() // nil for the physical root, which belongs to the caller
}

// Of wraps the caller's descriptor, which stays the caller's to close.
func Of(root *os.File, l Ledger) *Dir {
	return &Dir{fd: int(root.Fd()), ledger: l}
}

// Full returns the path of name from the physical root on.
func (d *Dir) Full(name string) string { return path.Join(d.name, name) }

// FD returns the descriptor of the directory, which stays the Dir's to close.
func (d *Dir) FD() int { return d.fd }

// Opened enters something that name stands for in the ledger, such as a lock.
func (d *Dir) Opened(kind, name string) (released func()) { return d.ledger.Opened(kind, d.Full(name)) }

// Fail describes a failed operation on name.
func (d *Dir) Fail(op, name string, err error) error {
	return &os.PathError{Op: op, Path: "/" + d.Full(name), Err: err}
}

// rawOpen opens name with the flags; resolve are RESOLVE_ bits. The caller closes the descriptor
// and calls released.
func (d *Dir) rawOpen(name string, flags int, mode, resolve uint64) (fd int, released func(), err error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode, Resolve: resolve}
	fd, err = unix.Openat2(d.fd, name, &how)
	for err == unix.EINTR {
		fd, err = unix.Openat2(d.fd, name, &how)
	}
	if err != nil {
		return -1, nil, d.Fail("open", name, err)
	}
	return fd, d.ledger.Opened("fd", d.Full(name)), nil
}

// Open opens name with the flags; resolve are RESOLVE_ bits. closeFD gives the descriptor back.
func (d *Dir) Open(name string, flags int, mode, resolve uint64) (fd int, closeFD func() error, err error) {
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

// Sub opens a directory. The caller closes it.
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, closeFD, err := d.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0, NoLinks)
	if err != nil {
		return nil, err
	}
	return &Dir{fd: fd, name: d.Full(name), ledger: d.ledger, released: func() { _ = closeFD() }}, nil
}

// Close gives a directory back that Sub opened; nothing was written through it that its close could
// still lose.
func (d *Dir) Close() { d.released() }

// With opens a directory for the time of fn.
func (d *Dir) With(name string, fn func(*Dir) error) error {
	s, err := d.Sub(name)
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

// MkdirAll creates the directories of the path that are missing, with exactly this mode whatever
// the umask.
func (d *Dir) MkdirAll(name string, mode uint32) error {
	done := ""
	for part := range strings.SplitSeq(name, "/") {
		done = path.Join(done, part)
		err := d.Mkdir(done, mode)
		if errors.Is(err, os.ErrExist) {
			err = d.checkDirectory(done)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkDirectory fails where name is no directory, but a link to one, say.
func (d *Dir) checkDirectory(name string) error {
	found, err := d.IsKind(name, unix.S_IFDIR)
	if err == nil && !found {
		err = d.Fail("mkdir", name, unix.ENOTDIR)
	}
	return err
}

// Mkdir creates one directory with exactly this mode.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.At(name, func(parent int, base string) error {
		if err := unix.Mkdirat(parent, base, mode); err != nil {
			return d.Fail("mkdir", name, err)
		}
		return d.FailIf("prepare", name, Plain(parent, base, mode))
	})
}

// At calls fn with a descriptor of the directory that holds name, and name's last part.
func (d *Dir) At(name string, fn func(parent int, base string) error) error {
	parent, base := path.Split(name)
	if parent == "" {
		return fn(d.fd, base)
	}
	return d.With(strings.TrimSuffix(parent, "/"), func(p *Dir) error { return fn(p.fd, base) })
}

// FailIf is Fail where err is not nil.
func (d *Dir) FailIf(op, name string, err error) error {
	if err != nil {
		return d.Fail(op, name, err)
	}
	return nil
}

// WriteFile creates a file, which must not be there, with exactly this mode.
func (d *Dir) WriteFile(name string, data []byte, mode uint32) error {
	return d.create(name, bytes.NewReader(data), int64(len(data)), mode)
}

// Replace creates a file with the size bytes that r yields, in place of one that is there.
func (d *Dir) Replace(name string, r io.Reader, size int64, mode uint32) error {
	if err := d.Remove(name, false); err != nil {
		return err
	}
	return d.create(name, r, size, mode)
}

// create is [Dir.Create] for the size bytes that r yields.
func (d *Dir) create(name string, r io.Reader, size int64, mode uint32) error {
	return d.Create(name, mode, func(w io.Writer) error {
		n, err := io.Copy(w, io.LimitReader(r, size))
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of content, %d were announced", n, size)
		}
		return err
	})
}

// Create makes a file, which must not be there, with the content that write writes. It makes every
// file on a target that is not an object of the repository. Owner and mode are decided here.
func (d *Dir) Create(name string, mode uint32, write func(io.Writer) error) error {
	fd, closeFD, err := d.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint64(mode), NoLinks)
	if err != nil {
		return err
	}
	err = d.At(name, func(parent int, base string) error { return Plain(parent, base, mode) })
	if err == nil {
		err = write(fdWriter(fd))
	}
	return d.FailIf("write", name, errors.Join(err, closeFD()))
}

// Symlink makes name point to target. A file that is there is replaced in one step.
func (d *Dir) Symlink(target, name string) error {
	return d.At(name, func(parent int, base string) error {
		err := unix.Symlinkat(target, parent, base)
		if err != unix.EEXIST {
			return d.FailIf("symlink", name, err)
		}
		tmp := base + ".tmp"
		if err := unix.Symlinkat(target, parent, tmp); err != nil {
			return d.Fail("symlink", name, err)
		}
		return d.FailIf("rename", name, unix.Renameat(parent, tmp, parent, base))
	})
}

// Remove deletes a file, or an empty directory when isDir is set. A missing entry is no error.
func (d *Dir) Remove(name string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	err := d.At(name, func(parent int, base string) error {
		return d.FailIf("remove", name, unix.Unlinkat(parent, base, flags))
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Syncfs writes out the file system that the directory is on.
func (d *Dir) Syncfs() error { return d.FailIf("syncfs", ".", unix.Syncfs(d.fd)) }

// Stat describes name, without following it if it is a symbolic link; exists is false where nothing
// is.
func (d *Dir) Stat(name string) (st unix.Stat_t, exists bool, err error) {
	err = d.At(name, func(parent int, base string) error {
		return d.FailIf("stat", name, unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW))
	})
	if errors.Is(err, os.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
}

// IsKind reports whether name is there and of the file type (S_IFREG, ...).
func (d *Dir) IsKind(name string, kind uint32) (bool, error) {
	st, exists, err := d.Stat(name)
	return exists && st.Mode&unix.S_IFMT == kind, err
}

// Names lists the directory name in byte order.
func (d *Dir) Names(name string) ([]string, error) {
	fd, closeFD, err := d.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0, NoLinks)
	if err != nil {
		return nil, err
	}
	defer closeFD()
	entries, err := readEntries(fd)
	return entries, d.FailIf("list", name, err)
}

// AsFile lends the directory as an *os.File, on a descriptor of its own that is closed after fn.
func (d *Dir) AsFile(fn func(*os.File) error) error {
	fd, released, err := d.rawOpen(".", unix.O_RDONLY|unix.O_DIRECTORY, 0, NoLinks)
	if err != nil {
		return err
	}
	defer released()
	f := os.NewFile(uintptr(fd), d.name)
	defer f.Close()
	return fn(f)
}
