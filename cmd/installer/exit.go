package main

import (
	"errors"
	"os"

	"installer/disk"
	"installer/finalize"
	"installer/install/choice/config"
	"installer/install/verify"
	"installer/install/vm"
	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// Exit statuses of every command.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // wrong usage
	exitHeld    = 3 // the target is held; the report says by whom
	exitRefused = 4 // the target was refused
	exitSource  = 5 // the source was refused
)

// usageError is a command line that cannot be carried out as it stands.
type usageError struct{ cause error }

func (e *usageError) Error() string { return e.cause.Error() }
func (e *usageError) Unwrap() error { return e.cause }

// noTargetError refuses a target that is not there.
type noTargetError struct{ cause error }

func (e *noTargetError) Error() string { return "finding the target: " + e.cause.Error() }
func (e *noTargetError) Unwrap() error { return e.cause }

// requireTarget refuses a path that leads nowhere; whatever it leads to is judged by the command. A
// link counts as itself.
func requireTarget(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return &noTargetError{err}
	}
	return nil
}

// exitStatus maps an error to the exit status of the command.
func exitStatus(err error) int {
	switch {
	case err == nil:
		return exitDone
	case is[*statusError](err):
		var other *statusError
		errors.As(err, &other)
		return other.status
	case is[*usageError](err), is[*image.UnknownTransportError](err):
		return exitUsage
	case errors.Is(err, bootloader.ErrNoLoader), errors.Is(err, bootloader.ErrBIOSAlone):
		return exitUsage
	case is[*finalize.HeldError](err), is[*disk.StillAttachedError](err):
		return exitHeld
	case is[*vm.GuestError](err):
		return guestStatus(err)
	case is[*disk.InUseError](err), is[*disk.NotEmptyError](err), is[*disk.RefusedError](err), is[*disk.TooSmallError](err), is[*disk.VerityError](err),
		is[*bootloader.SectorError](err), is[*verify.ReferenceError](err), is[*verify.FormatError](err), is[*noTargetError](err),
		is[*vm.OutputRefusedError](err):
		return exitRefused
	case is[*image.SourceError](err), is[*bootable.Error](err),
		is[*deploy.ComposefsError](err), is[*deploy.PrepareRootError](err), is[*bootloader.MissingError](err), is[*bootloader.ModuleError](err), is[*bootloader.ProgramError](err), is[*bootloader.SecureBootError](err),
		is[*config.FileError](err), lacksMaker(err):
		return exitSource
	case is[*bootloader.ArgumentError](err): // of the command line; that of an image is in a SourceError
		return exitUsage
	}
	return exitFailed
}

// lacksMaker reports whether an image lacks the program that makes its root file system.
func lacksMaker(err error) bool {
	var missing *disk.MissingProgramError
	return errors.As(err, &missing) && missing.InImage
}

// guestStatus is the exit status of the installer in a virtual machine, which
// has the same meanings.
func guestStatus(err error) int {
	var guest *vm.GuestError
	errors.As(err, &guest)
	return guest.Status
}
