package install

import (
	"errors"
	"fmt"

	"installer/install/confine"
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
	if !deviceFailed(err) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, where)
}

// deviceFailed tells whether a device may be to blame. A program that fails does not pass the kernel's error on: it
// may be that it could not be read.
func deviceFailed(err error) bool {
	if exit := (*confine.ExitError)(nil); errors.As(err, &exit) {
		return true
	}
	for _, e := range deviceErrors() {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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
