package beneath

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// FS shows a directory of the target as it looks with that directory as the root: symbolic links,
// absolute ones too, are followed and never lead out. Files that are open through it stand in the
// ledger until they are closed.
type FS struct {
	dir *Dir
}

// OpenFS opens the directory at path, relative to the physical root, for reading. The caller closes
// the result.
func OpenFS(root *os.File, path string, l Ledger) (*FS, error) { return Of(root, l).OpenFS(path) }

// OpenFS opens a directory for reading. The caller closes the result.
func (d *Dir) OpenFS(name string) (*FS, error) {
	d, err := d.Sub(name)
	if err != nil {
		return nil, err
	}
	return &FS{dir: d}, nil
}

// FS shows the directory, which stays the caller's to close.
func (d *Dir) FS() *FS { return &FS{dir: d} }

// Close gives the directory back. Files that are open stay open.
func (f *FS) Close() error {
	f.dir.Close()
	return nil
}

// Open opens a regular file, or a directory to be looked at but not listed. Nothing else is opened,
// so that a fifo cannot hold the caller up.
func (f *FS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return f.dir.OpenInside(name)
}

// OpenInside opens name with the directory as its root.
func (d *Dir) OpenInside(name string) (*File, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	fd, closeFD, err := d.Open(name, flags, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, err
	}
	f := &File{fd: fd, name: name, closeFD: closeFD}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = d.Fail("open", name, errors.New("neither a regular file nor a directory"))
	}
	if err != nil {
		return nil, errors.Join(err, closeFD())
	}
	return f, nil
}

// ReadFile reads a file of at most limit bytes, resolving name with the directory as its root.
func (d *Dir) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := d.OpenInside(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("the file is larger than anything sensible")
	}
	if err != nil {
		return nil, d.Fail("read", name, err)
	}
	return data, nil
}

// File is an open file or directory of an FS. It is a plain descriptor, since the ledger must see
// each close.
type File struct {
	fd      int
	name    string
	closeFD func() error
}

func (f *File) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, &fs.PathError{Op: "read", Path: f.name, Err: err}
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) {
	// The kernel's own link resolves to the open file, whatever has its name by now.
	info, err := os.Stat("/proc/self/fd/" + strconv.Itoa(f.fd))
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.name, Err: err}
	}
	return named{FileInfo: info, name: path.Base(f.name)}, nil
}

// named is a description that was made by way of a descriptor, under the name that was asked for.
type named struct {
	fs.FileInfo
	name string
}

func (n named) Name() string { return n.name }

// Close gives the file back.
func (f *File) Close() error {
	if f.closeFD == nil {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	err := f.closeFD()
	f.closeFD = nil
	return err
}

// readEntries lists the names in an open directory in byte order.
func readEntries(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
