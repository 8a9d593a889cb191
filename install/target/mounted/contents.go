package mounted

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// lostFound is a directory that file systems have from the start.
const lostFound = "lost+found"

// systemNames are names that only the physical root of an installed system has.
var systemNames = []string{"ostree", "sysroot", ".bootc-aleph.json"}

// within opens a directory by name, not through a symlink and not across a mount.
const within = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

// Contents lists, in order, the entries in the root of a file system: without lost+found, mount
// points, and directories that lead to these.
func Contents(f Filesystem) ([]string, error) {
	dir, err := os.Open(f.Mount.Point)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", f.Mount.Point, err)
	}
	defer dir.Close()
	return contents(dir, true)
}

func contents(dir *os.File, top bool) ([]string, error) {
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range entries {
		if top && name == lostFound {
			continue
		}
		vacant, err := isVacant(dir, name)
		if err != nil {
			return nil, err
		}
		if !vacant {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// isVacant reports whether an entry is a mount point, or a directory for one that holds nothing
// else.
func isVacant(dir *os.File, name string) (bool, error) {
	sub, err := openWithin(dir, name)
	switch {
	case errors.Is(err, unix.EXDEV):
		return true, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, nil
	case err != nil:
		return false, err
	}
	defer sub.Close()
	if name != "boot" && name != "efi" {
		return false, nil
	}
	names, err := contents(sub, false)
	return len(names) == 0, err
}

// Systems returns the names that only an installed system has in its root.
func Systems(names []string) []string {
	var found []string
	for _, name := range names {
		if slices.Contains(systemNames, name) {
			found = append(found, name)
		}
	}
	return found
}

// Clear deletes the content of a file system, or of the directory below in it. It keeps mount
// points, the directories that lead to them, and lost+found.
func Clear(ctx context.Context, f Filesystem, below string) error {
	dir, err := os.Open(f.Mount.Point)
	if err != nil {
		return fmt.Errorf("emptying %s: %w", f.Mount.Point, err)
	}
	defer dir.Close()
	if below != "" {
		sub, err := openWithin(dir, below)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) { // a mount point is another file system's
			return nil
		}
		if err != nil {
			return fmt.Errorf("emptying %s: %w", path.Join(f.Mount.Point, below), err)
		}
		defer sub.Close()
		dir = sub
	}
	if _, err := clearDir(ctx, dir, true); err != nil {
		return fmt.Errorf("emptying %s: %w", path.Join(f.Mount.Point, below), err)
	}
	return nil
}

// clearDir reports whether an entry had to be kept.
func clearDir(ctx context.Context, dir *os.File, top bool) (kept bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := makeMutable(dir); err != nil {
		return false, err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if top && name == lostFound {
			continue
		}
		keep, err := clearEntry(ctx, dir, name)
		if err != nil {
			return false, err
		}
		kept = kept || keep
	}
	return kept, nil
}

func clearEntry(ctx context.Context, dir *os.File, name string) (kept bool, err error) {
	sub, err := openWithin(dir, name)
	switch {
	case errors.Is(err, unix.EXDEV):
		return true, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, removeFile(dir, name)
	case err != nil:
		return false, err
	}
	kept, err = clearDir(ctx, sub, false)
	if err := errors.Join(err, sub.Close()); err != nil || kept {
		return kept, err
	}
	return false, pathError("rmdir", dir, name, unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR))
}

// removeFile deletes a file, also one that is marked immutable.
func removeFile(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if !errors.Is(err, unix.EPERM) {
		return pathError("unlink", dir, name, err)
	}
	fd, openErr := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if openErr != nil {
		return pathError("unlink", dir, name, err)
	}
	f := os.NewFile(uintptr(fd), path.Join(dir.Name(), name))
	defer f.Close()
	if err := makeMutable(f); err != nil {
		return err
	}
	return pathError("unlink", dir, name, unix.Unlinkat(int(dir.Fd()), name, 0))
}

// Inode flags of <linux/fs.h> that keep even root from deleting: FS_IMMUTABLE_FL and FS_APPEND_FL.
// ostree sets the first on each deployment's root directory.
const lockedFlags = 0x10 | 0x20

// makeMutable takes them off. A file system without such flags has none set.
func makeMutable(f *os.File) error {
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&lockedFlags == 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^lockedFlags); err != nil {
		return fmt.Errorf("taking the immutable flag off %s: %w", f.Name(), err)
	}
	return nil
}

func openWithin(dir *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: within}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	if err != nil {
		return nil, pathError("open", dir, name, err)
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

func pathError(op string, dir *os.File, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path.Join(dir.Name(), name), Err: err}
}
