// Package outfile makes files that appear whole or not at all. Until it is
// committed a file has no name, so that nothing is left of it when the process
// is killed.
//
// The package holds files without a name, whether they get one in the end or
// not, and the rules for files that an output must not replace. The content of
// the files belongs elsewhere.
package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular refuses to replace a directory, a device or the like.
var ErrNotRegular = errors.New("it is no regular file")

// Scratch makes a file in a directory that goes with its last descriptor.
func Scratch(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o666)
	if noNameless(err) {
		if f, err = os.CreateTemp(dir, ".installer-scratch-"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making a temporary file in %s: %w", dir, err)
	}
	return f, nil
}

// noNameless reports whether a file system refused to make a file without a name.
func noNameless(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR)
}

// Options restrict the files that an output may replace. The zero value allows any regular file.
type Options struct {
	Guard *Guard // files that the command uses otherwise; nil = none
	// Mine reports whether the content of an existing file is that of an earlier output of
	// this kind. Any other file that is not empty is refused. nil = every file may be replaced.
	Mine func(content []byte) bool
	// Streams allows pipes, terminals and open descriptors, which are written to.
	Streams bool
}

// File is an output under way. Until Commit it has no name, or where the file
// system has no such files, one of its own beside the final one.
type File struct {
	*os.File
	place
	partial string // name before the final one
	named   bool   // partial exists
	stream  bool   // File is no file that gets a name
}

// Create makes the file that will have a name, or that replaces the one which has
// it; of a symbolic link the file that it leads to. The error is [ErrNotRegular]
// if that is a directory, a device or the like. The caller closes it.
func Create(path string) (*File, error) { return Open(path, Options{}) }

// Open makes the file that will have a name, as [Create] does, within the bounds of o. The
// name is settled here: later changes of the working directory, of links and of mounts change
// nothing about it. A file that is replaced hands on its mode and owner.
func Open(path string, o Options) (*File, error) {
	p, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("looking at the output %s: %w", path, err)
	}
	f, err := p.open(o)
	if err != nil {
		p.close()
		return nil, err
	}
	return f, nil
}

func (p place) open(o Options) (*File, error) {
	if err := o.Guard.check(p); err != nil {
		return nil, err
	}
	if p.descriptor >= 0 || p.exists && p.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return p.openStream(o.Streams)
	}
	if p.exists {
		if err := p.replaceable(o.Mine); err != nil {
			return nil, fmt.Errorf("replacing %s: %w", p.path, err)
		}
	}
	f := &File{place: p, partial: "." + p.name + ".installer-partial"}
	fd, err := unix.Openat(p.dirFD(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	switch {
	case err == nil:
		f.File = os.NewFile(uintptr(fd), p.path)
	case noNameless(err):
		err = f.openNamed()
	}
	if err == nil && p.exists {
		err = f.inherit()
	}
	if err != nil {
		if f.File != nil {
			err = errors.Join(err, f.discard())
		}
		return nil, fmt.Errorf("making a file in %s: %w", filepath.Dir(p.path), err)
	}
	return f, nil
}

// openStream opens an output that is written to as it stands.
func (p place) openStream(allowed bool) (*File, error) {
	var fd int
	var err error
	switch kind := p.stat.Mode & unix.S_IFMT; {
	case !allowed || kind == unix.S_IFDIR || kind == unix.S_IFBLK:
		return nil, &NotRegularError{Path: p.path, Mode: kind}
	case p.descriptor >= 0:
		fd, err = unix.FcntlInt(uintptr(p.descriptor), unix.F_DUPFD_CLOEXEC, 0)
	default:
		fd, err = unix.Openat(p.dirFD(), p.name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "opening the output", Path: p.path, Err: err}
	}
	return &File{File: os.NewFile(uintptr(fd), p.path), place: p, stream: true}, nil
}

// NotRegularError refuses an output that is no file that could be replaced.
type NotRegularError struct {
	Path string
	Mode uint32 // type bits of st_mode, see inode(7)
}

func (e *NotRegularError) Error() string {
	kind := map[uint32]string{unix.S_IFDIR: "a directory", unix.S_IFBLK: "a block device", unix.S_IFCHR: "a character device",
		unix.S_IFIFO: "a pipe", unix.S_IFSOCK: "a socket"}[e.Mode]
	if kind == "" {
		kind = "an open descriptor"
	}
	return e.Path + " is " + kind
}

// Unwrap makes it an [ErrNotRegular].
func (e *NotRegularError) Unwrap() error { return ErrNotRegular }

// Advice is the remedy.
func (e *NotRegularError) Advice() string { return "name a file" }

// inherit gives the new file the mode and the owner of the one that it replaces.
func (f *File) inherit() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Uid != f.stat.Uid || st.Gid != f.stat.Gid {
		if err := f.Chown(int(f.stat.Uid), int(f.stat.Gid)); err != nil {
			return fmt.Errorf("keeping the owner of %s: %w", f.path, err)
		}
	}
	if err := unix.Fchmod(int(f.Fd()), f.stat.Mode&0o7777); err != nil {
		return fmt.Errorf("keeping the mode of %s: %w", f.path, err)
	}
	return nil
}

// openNamed takes the partial name. A file that a killed process left under it is used
// again; one that a process is writing stays that process's.
func (f *File) openNamed() error {
	fd, err := unix.Openat(f.dirFD(), f.partial, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.path)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another process is writing %s", f.partial)
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.File, f.named = file, true
	return nil
}

// Commit makes the file durable and gives it its name, in place of the file that has it.
func (f *File) Commit() error {
	if f.stream {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s to its disk: %w", f.path, err)
	}
	if !f.named {
		if err := unix.Unlinkat(f.dirFD(), f.partial, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the part of %s that another process left: %w", f.path, err)
		}
		fd := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		if err := unix.Linkat(unix.AT_FDCWD, fd, f.dirFD(), f.partial, unix.AT_SYMLINK_FOLLOW); err != nil {
			return fmt.Errorf("giving %s its name: %w", f.path, err)
		}
		f.named = true
	}
	if err := unix.Renameat(f.dirFD(), f.partial, f.dirFD(), f.name); err != nil {
		return fmt.Errorf("giving %s its name: %w", f.path, err)
	}
	f.named = false
	return f.syncDir()
}

// syncDir makes the new name durable.
func (f *File) syncDir() error {
	fd, err := unix.Openat(f.dirFD(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Fsync(fd)
		unix.Close(fd)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: its file system has no need of it
		return fmt.Errorf("writing the directory of %s to its disk: %w", f.path, err)
	}
	return nil
}

// Close closes the file, and removes one that was not committed.
func (f *File) Close() error {
	err := f.discard()
	f.close()
	return err
}

func (f *File) discard() error {
	var err error
	if f.named {
		err = unix.Unlinkat(f.dirFD(), f.partial, 0)
	}
	return errors.Join(err, f.File.Close())
}

// Write puts a file in place as a whole, within the bounds of o.
func Write(path string, data []byte, o Options) (err error) {
	f, err := Open(path, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// joined is the path of a name that a link at path leads to.
func joined(path, target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	return filepath.Join(filepath.Dir(path), target)
}
