package kernel

import (
	"errors"
	"fmt"

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
