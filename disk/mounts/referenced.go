package mounts

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Referenced asks the kernel whether anything refers to a mount: a file, a mapping, a working
// directory, a mount on top of it. It does not see other mounts of the same superblock.
//
// It uses the first half of MNT_EXPIRE, see umount(2), which unmounts only when called twice with
// no use of the mount between: a walk to the mount before and after the call clears the mark that
// the call leaves, and a lock keeps a second caller of this function away for so long. The lock is
// on the file of the mount namespace, which nothing else locks.
func Referenced(ctx context.Context, m Mount) (bool, error) {
	p, err := OpenPoint(m)
	if err != nil {
		return false, err
	}
	defer p.Close()
	fd, err := openOwn()
	if err != nil {
		return false, err
	}
	return p.referenced(ctx, fd, p.path())
}

// referenced asks about the mount, by a path to it. It closes namespace, the file of the namespace
// that the mount is in.
func (p *Point) referenced(ctx context.Context, namespace int, path string) (bool, error) {
	unlock, err := lockNamespace(ctx, namespace)
	if err != nil {
		return false, fmt.Errorf("asking the kernel about %s: %w", p.mount.Point, err)
	}
	defer unlock()
	if err := p.check(); err != nil {
		return false, err
	}
	err = unix.Unmount(path, unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW)
	if walked := p.check(); walked != nil {
		return false, errors.Join(walked, err)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case err == nil:
		return false, fmt.Errorf("asking the kernel about %s: another program asked in the same way at the same moment, and it was unmounted", p.mount.Point)
	}
	return false, &Error{Op: "umount2", Source: p.mount.Source, Target: p.mount.Point, Flags: "MNT_EXPIRE|UMOUNT_NOFOLLOW", Err: err}
}

// lockNamespace locks the file of a mount namespace, and closes it at the end. Another caller of
// Referenced has the lock for microseconds; the wait ends with ctx.
func lockNamespace(ctx context.Context, fd int) (unlock func(), err error) {
	locked := make(chan error)
	go func() {
		err := unix.Flock(fd, unix.LOCK_EX)
		select {
		case locked <- err:
		case <-ctx.Done():
			unix.Close(fd)
		}
	}()
	select {
	case err := <-locked:
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("locking the mount namespace against another search: %w", err)
		}
		return func() {
			_ = unix.Flock(fd, unix.LOCK_UN) // fails on no lock that was taken
			unix.Close(fd)
		}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
