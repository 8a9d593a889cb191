package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"installer/disk"

	"golang.org/x/sys/unix"
)

// scratch makes a file in a directory that has no name, and goes with its last descriptor.
func scratch(dir string) (*os.File, error) {
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

// memory makes a file that lives in memory.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// fdPath is a name of an open file for this process.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// output is the file that is made. Until commit it has no name, or where the
// file system has no such files, one of its own beside the final one.
type output struct {
	path    string
	partial string // name before the final one
	named   bool   // partial exists
	file    *os.File
}

// openOutput refuses what cannot be replaced and makes the file that will replace it.
func openOutput(path string) (*output, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, &disk.RefusedError{Path: path, Reason: "it is no regular file; installer to-disk writes to devices"}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking at the output: %w", err)
	}
	dir := filepath.Dir(path)
	o := &output{path: path, partial: filepath.Join(dir, "."+filepath.Base(path)+".installer-partial")}
	o.file, err = nameless(dir)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		err = o.openNamed()
	}
	if err != nil {
		return nil, fmt.Errorf("making a file in %s: %w", dir, err)
	}
	return o, nil
}

// openNamed takes the partial name. What a killed build left under it is used
// again; a build that is under way keeps it.
func (o *output) openNamed() error {
	f, err := os.OpenFile(o.partial, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another build is writing %s", o.partial)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return err
	}
	o.file, o.named = f, true
	return nil
}

// commit makes the file durable and gives it its name, in place of what has that.
func (o *output) commit() error {
	if err := o.file.Sync(); err != nil {
		return fmt.Errorf("writing %s to its disk: %w", o.path, err)
	}
	if !o.named {
		if err := os.Remove(o.partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what another build left: %w", err)
		}
		if err := unix.Linkat(unix.AT_FDCWD, fdPath(o.file), unix.AT_FDCWD, o.partial, unix.AT_SYMLINK_FOLLOW); err != nil {
			return fmt.Errorf("giving %s its name: %w", o.path, err)
		}
		o.named = true
	}
	if err := os.Rename(o.partial, o.path); err != nil {
		return fmt.Errorf("giving %s its name: %w", o.path, err)
	}
	o.named = false
	return syncDir(filepath.Dir(o.path))
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

// close removes what was not committed.
func (o *output) close() error {
	var err error
	if o.named {
		err = os.Remove(o.partial)
	}
	return errors.Join(err, o.file.Close())
}

// allocated is how much of its disk a file takes, in bytes.
func allocated(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("looking at the output: %w", err)
	}
	const unit = 512 // of st_blocks, always (stat(2))
	return st.Blocks * unit, nil
}
