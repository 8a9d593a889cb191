package install

import (
	"errors"
	"fmt"

	"installer/install/confine"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// deviceErrors returns the kernel's errors of a device that fails, or has no room.
func deviceErrors() []error {
	return []error{unix.EIO, unix.ENXIO, unix.ENODEV, unix.EREMOTEIO, unix.EROFS, unix.EUCLEAN, unix.ESHUTDOWN, unix.ENOSPC}
}

// nameDevice adds to an error of a device where the run was writing to: the kernel names a file at
// best, and a write that is lost later none.
func nameDevice(err error, where string) error {
	if source := (*image.SourceError)(nil); err == nil || where == "" || errors.As(err, &source) || !deviceFailed(err) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, where)
}

// deviceFailed reports whether a device may be to blame. A program that fails does not pass the
// kernel's error on: it may be that it could not be read.
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
