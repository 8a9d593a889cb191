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
	where := r.devices()
	if source := (*image.SourceError)(nil); err == nil || where == "" || errors.As(err, &source) {
		return err
	}
	for _, e := range deviceErrors() {
		if errors.Is(err, e) {
			return fmt.Errorf("%w (%s)", err, where)
		}
	}
	return err
}

// devices says what the run writes to, as far as it is known.
func (r *run) devices() string {
	switch {
	case r.disk.device != nil:
		return fmt.Sprintf("the disk is %s, its root %s", r.disk.claimed.Path(), r.disk.device.Path())
	case r.disk.claimed != nil:
		return "the disk is " + r.disk.claimed.Path()
	case r.mounted != nil && r.mounted.written:
		return "the root is on " + r.mounted.tree.Root.Device
	}
	return ""
}
