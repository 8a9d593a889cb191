package wholedisk

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install/confine"
)

// rehearse tries, without a write, the steps that depend on the machine more than on the disk: a
// loop device over the root partition, the program that makes its file system, and the kernel's
// driver of that. A container often lacks one of them.
func (d *Disk) rehearse(ctx context.Context) error {
	root, err := d.findPartition(disk.NameRoot)
	if err != nil {
		return err
	}
	dev, err := d.claimed.Attach(root)
	if err != nil {
		return fmt.Errorf("trying a loop device: %w", err)
	}
	if err := dev.Detach(); err != nil {
		return err
	}
	if err := tryDriver(d.choice.Filesystem); err != nil {
		return err
	}
	if err := confine.Run(ctx, []string{d.choice.Filesystem.Program(), "-V"}); err != nil {
		return fmt.Errorf("trying the program that makes the root file system: %w", err)
	}
	return nil
}

// NoDriverError says that the kernel cannot mount a kind of file system.
type NoDriverError struct {
	Filesystem disk.Filesystem
	Err        error
}

func (e *NoDriverError) Error() string {
	return fmt.Sprintf("the running kernel has no driver for %s: %v", e.Filesystem, e.Err)
}

func (e *NoDriverError) Unwrap() error { return e.Err }

// Advice is the remedy.
func (e *NoDriverError) Advice() string {
	return fmt.Sprintf("load it: modprobe %s; or choose another file system by --filesystem", e.Filesystem)
}

// tryDriver has the kernel load the driver of a file system, as the mount will.
func tryDriver(f disk.Filesystem) error {
	fd, err := unix.Fsopen(string(f), unix.FSOPEN_CLOEXEC)
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.ENODEV):
		return &NoDriverError{f, err}
	}
	return nil // the kernel, or a filter, does not have the call: the mount decides
}
