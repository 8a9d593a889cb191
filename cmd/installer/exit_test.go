package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"installer/disk"
	"installer/finalize"
	"installer/install/choice/config"
	"installer/install/verify"
	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{errors.New("anything"), exitFailed},
		{context.Canceled, exitFailed},
		{&disk.MissingProgramError{Program: "mkfs.xfs", Package: "xfsprogs", Err: os.ErrNotExist}, exitFailed},
		{&disk.MissingProgramError{Program: "mkfs.xfs", Package: "xfsprogs", InImage: true, Err: os.ErrNotExist}, exitSource},
		{&config.FileError{}, exitSource},
		{&noTargetError{os.ErrNotExist}, exitRefused},
		{&notRootError{}, exitFailed},
		{&outputError{io.ErrShortWrite}, exitFailed},
		{&reportError{cause: io.ErrShortWrite}, exitFailed},
		{&usageError{errors.New("flag")}, exitUsage},
		{&image.UnknownTransportError{Ref: "x:y"}, exitUsage},
		{&finalize.HeldError{Stage: "unmount"}, exitHeld},
		{&disk.StillAttachedError{}, exitHeld},
		{&disk.InUseError{Path: "/dev/vda"}, exitRefused},
		{&disk.NotEmptyError{Path: "/dev/vda"}, exitRefused},
		{&disk.RefusedError{Path: "/dev/vda"}, exitRefused},
		{&disk.TooSmallError{Need: 2, Have: 1}, exitRefused},
		{&image.SourceError{Err: io.ErrUnexpectedEOF}, exitSource},
		{&bootable.Error{}, exitSource},
		{&deploy.ComposefsError{}, exitSource},
		{&disk.VerityError{}, exitRefused},
		{&deploy.PrepareRootError{}, exitSource},
		{&bootloader.MissingError{}, exitSource},
		{&bootloader.ModuleError{}, exitSource},
		{&bootloader.ArgumentError{}, exitUsage},
		{&image.SourceError{Err: &bootloader.ArgumentError{}}, exitSource},
		{&bootloader.ProgramError{Err: io.EOF}, exitSource},
		{&bootloader.SectorError{}, exitRefused},
		{&verify.ReferenceError{}, exitRefused},
		{&verify.FormatError{}, exitRefused},
	} {
		for _, err := range []error{c.err, wrapped(c.err)} {
			if got := exitStatus(err); got != c.want {
				t.Errorf("%T %v: status %d, want %d", c.err, c.err, got, c.want)
			}
		}
	}
}

// wrapped puts an error where commands leave it: below a step's name, beside another.
func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("step: %w", err), errors.New("the report could not be written"))
}
