package mounts

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Referenced asks the kernel whether anything refers to a mount: a file, a
// mapping, a working directory, a mount on top of it. It does not see other
// mounts of the same super block.
//
// It uses the first half of MNT_EXPIRE, see umount(2), which unmounts only when
// called twice with no use of the mount between: the mark that the call leaves
// is wiped out before and after by walking to the mount, and a lock on the
// directory around the mount point keeps a second caller of this function away.
func Referenced(m Mount) (bool, error) {
	p, err := OpenPoint(m)
	if err != nil {
		return false, err
	}
	defer p.Close()
	lock, err := unix.Openat(p.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("opening the directory around %s: %w", m.Point, err)
	}
	defer unix.Close(lock)
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, fmt.Errorf("locking the directory around %s (is another search under way?): %w", m.Point, err)
	}
	if err := p.check(); err != nil {
		return false, err
	}
	err = unix.Unmount(p.path(), unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW)
	if walked := p.check(); walked != nil {
		return false, errors.Join(walked, err)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case err == nil:
		return false, fmt.Errorf("asking the kernel about %s: someone else asked in the same way at the same moment, and it was unmounted", m.Point)
	}
	return false, &Error{Op: "umount2", Source: m.Source, Target: m.Point, Flags: "MNT_EXPIRE|UMOUNT_NOFOLLOW", Err: err}
}
