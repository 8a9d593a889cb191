package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// childrenPin reports whether a mount refers to the one that it stands on, as it did before Linux
// 6.17. It is tried with two mounts that are in no namespace, and end with their descriptors.
func (t *tables) childrenPin() (bool, error) {
	below, err := detachedMount()
	if err != nil {
		return false, err
	}
	defer unix.Close(below)
	above, err := detachedMount()
	if err != nil {
		return false, err
	}
	defer unix.Close(above)
	before, err := t.referencesOf(below)
	if err != nil {
		return false, err
	}
	err = unix.MoveMount(above, "", below, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		return true, nil // not possible before Linux 6.15
	}
	if err != nil {
		return false, fmt.Errorf("standing a mount on another: %w", err)
	}
	after, err := t.referencesOf(below)
	return after > before, err
}

// tryCounts reports whether this kernel counts references in the way that is known: a mount that is in
// no namespace is the one of its superblock, and an open file on it adds one to it. A process that
// may not mount cannot try.
func (t *tables) tryCounts() (bool, error) {
	fd, err := detachedMount()
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	at, err := t.mountOf(fd)
	if err != nil {
		return false, err
	}
	s, err := t.superblock(at)
	if err != nil || s.Others != 0 || len(s.Mounts) != 1 {
		return false, err
	}
	before, err := t.references(at)
	if err != nil {
		return false, err
	}
	file, err := unix.Openat(fd, ".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("opening a file on a tmpfs: %w", err)
	}
	defer unix.Close(file)
	after, err := t.references(at)
	return after == before+1, err
}

func (t *tables) referencesOf(fd int) (int, error) {
	at, err := t.mountOf(fd)
	if err != nil {
		return 0, err
	}
	return t.references(at)
}

// detachedMount makes a file system in memory, mounted in no namespace.
func detachedMount() (int, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening a tmpfs: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mounting a tmpfs nowhere: %w", err)
	}
	return fd, nil
}
