package verify

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// deploymentFS is a deployment as it looks with its directory as the root: links, absolute ones
// too, are followed and never lead out. It is a [bootable.Tree].
type deploymentFS struct {
	tree tree
	dir  *os.File
}

// inDeployment opens a deployment for the time of fn.
func (t tree) inDeployment(d *deployment, fn func(deploymentFS) error) error {
	return t.with(d.path, unix.O_DIRECTORY, func(f *os.File) error { return fn(deploymentFS{t, f}) })
}

// open opens a path. Its caller has the ledger know of it.
func (d deploymentFS) open(op, name string, flags int) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(d.dir.Fd()), name, &how)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat2(int(d.dir.Fd()), name, &how)
	}
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), path.Base(name)), nil
}

// ledgered is an open file that the ledger knows of.
type ledgered struct {
	*os.File
	released func()
}

func (f ledgered) Close() error {
	defer f.released()
	return f.File.Close()
}

// Open implements [fs.FS] for regular files.
func (d deploymentFS) Open(name string) (fs.File, error) {
	info, err := d.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is not a regular file")}
	}
	f, err := d.open("open", name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return ledgered{f, d.tree.ledger.Opened("fd", name)}, nil
}

// Stat implements [fs.StatFS].
func (d deploymentFS) Stat(name string) (fs.FileInfo, error) { return d.describe("stat", name, 0) }

// Lstat implements [fs.ReadLinkFS].
func (d deploymentFS) Lstat(name string) (fs.FileInfo, error) {
	return d.describe("lstat", name, unix.O_NOFOLLOW)
}

func (d deploymentFS) describe(op, name string, flags int) (fs.FileInfo, error) {
	f, err := d.open(op, name, unix.O_PATH|flags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// ReadLink implements [fs.ReadLinkFS].
func (d deploymentFS) ReadLink(name string) (string, error) {
	f, err := d.open("readlink", name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target, err := readLinkAt(int(f.Fd()), "")
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return target, nil
}

// ReadDir implements [fs.ReadDirFS].
func (d deploymentFS) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := d.open("readdir", name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var entries []fs.DirEntry
	for _, base := range names {
		info, err := d.Lstat(path.Join(name, base))
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	return entries, nil
}
