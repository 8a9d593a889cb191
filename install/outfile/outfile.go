// Package outfile makes files that appear whole or not at all. Until it is
// committed a file has no name, so that nothing is left of it when the process
// is killed.
//
// What belongs here: files without a name, whether they get one in the end or
// not. What does not: what is written into them.
package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotRegular refuses to replace what is no regular file.
var ErrNotRegular = errors.New("it is no regular file")

// Scratch makes a file in a directory that goes with its last descriptor.
func Scratch(dir string) (*os.File, error) {
	f, err := nameless(dir)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // not every file system can
		if f, err = os.CreateTemp(dir, ".installer-scratch-"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making a temporary file in %s: %w", dir, err)
	}
	return f, nil
}

func nameless(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o666)
}

// File is a file that is being made. Until Commit it has no name, or where the
// file system has no such files, one of its own beside the final one.
type File struct {
	*os.File
	path    string
	partial string // name before the final one
	named   bool   // partial exists
}

// Create makes the file that will have a name, or that replaces the one which has
// it; of a symbolic link the file that it leads to. The error is [ErrNotRegular]
// if that is a directory, a device or the like. The caller closes it.
func Create(path string) (*File, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("making %s: %w", path, ErrNotRegular)
	case err == nil:
		path, err = filepath.EvalSymlinks(path)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the output: %w", err)
	}
	dir := filepath.Dir(path)
	f := &File{path: path, partial: filepath.Join(dir, "."+filepath.Base(path)+".installer-partial")}
	f.File, err = nameless(dir)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		err = f.openNamed()
	}
	if err != nil {
		return nil, fmt.Errorf("making a file in %s: %w", dir, err)
	}
	return f, nil
}

// openNamed takes the partial name. What a killed process left under it is used
// again; one that is at work keeps it.
func (f *File) openNamed() error {
	file, err := os.OpenFile(f.partial, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another process is writing %s", f.partial)
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err != nil {
		file.Close()
		return err
	}
	f.File, f.named = file, true
	return nil
}

// Commit makes the file durable and gives it its name, in place of what has that.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s to its disk: %w", f.path, err)
	}
	if !f.named {
		if err := os.Remove(f.partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what another process left: %w", err)
		}
		fd := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		if err := unix.Linkat(unix.AT_FDCWD, fd, unix.AT_FDCWD, f.partial, unix.AT_SYMLINK_FOLLOW); err != nil {
			return fmt.Errorf("giving %s its name: %w", f.path, err)
		}
		f.named = true
	}
	if err := os.Rename(f.partial, f.path); err != nil {
		return fmt.Errorf("giving %s its name: %w", f.path, err)
	}
	f.named = false
	return syncDir(filepath.Dir(f.path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing the directory %s to its disk: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: its file system has no need of it
		return fmt.Errorf("writing the directory %s to its disk: %w", dir, err)
	}
	return nil
}

// Close closes the file, and removes what was not committed.
func (f *File) Close() error {
	var err error
	if f.named {
		err = os.Remove(f.partial)
	}
	return errors.Join(err, f.File.Close())
}

// Write puts a file in place as a whole. What is there and is no regular file, as
// a pipe or a terminal, is written to; a directory is an error.
func Write(path string, data []byte) (err error) {
	f, err := Create(path)
	if errors.Is(err, ErrNotRegular) {
		return writeInto(path, data)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

func writeInto(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}
