package install

import (
	"errors"
	"fmt"

	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// deviceErrors are what the kernel reports of a device that fails, and of one that has no room.
func deviceErrors() []error {
	return []error{unix.EIO, unix.ENXIO, unix.ENODEV, unix.EREMOTEIO, unix.EROFS, unix.EUCLEAN, unix.ESHUTDOWN, unix.ENOSPC}
}

// nameDevice adds to an error of a device which one the run was writing to: the kernel names a file at best, and a
// write that is lost later none.
func (r *run) nameDevice(err error) error {
	d := r.disk.claimed
	if source := (*image.SourceError)(nil); err == nil || d == nil || errors.As(err, &source) {
		return err
	}
	for _, e := range deviceErrors() {
		if !errors.Is(err, e) {
			continue
		}
		if dev := r.disk.device; dev != nil {
			return fmt.Errorf("%w (the disk is %s, its root %s)", err, d.Path(), dev.Path())
		}
		return fmt.Errorf("%w (the disk is %s)", err, d.Path())
	}
	return err
}
