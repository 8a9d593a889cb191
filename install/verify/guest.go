package verify

import (
	"context"
	"errors"
	"os"
)

// Guest makes all checks but that of the disk image in a machine that can mount. It passes each to
// observe as it ends, and returns that machine's report. Where there is no such machine its error
// is an [*UnavailableError].
type Guest func(ctx context.Context, d GuestDisk, observe func(Check, []Finding)) (*Report, error)

// GuestDisk is the disk that a guest is to look at.
type GuestDisk struct {
	Path       string
	File       *os.File // open for reading
	Format     string   // Raw, QCOW2 or BlockDevice
	SectorSize int      // bytes
}

// UnavailableError says why there is no guest, and how there could be one.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// askGuest has the checks made by a guest, where one is to make them. The checks that it did not
// come to are left for this machine, with the reason. The error is of a guest that broke down.
func (i *inspection) askGuest(ctx context.Context) error {
	if i.opts.Guest == nil || ctx.Err() != nil {
		return nil
	}
	d := GuestDisk{Path: i.opts.Disk, File: i.source.lock, Format: i.source.format, SectorSize: i.source.sector}
	if i.source.file != i.source.lock { // unpacked
		d.File, d.Format = i.source.file, Raw
	}
	report, err := i.opts.Guest(ctx, d, i.takeOver)
	var unavailable *UnavailableError
	switch {
	case errors.As(err, &unavailable):
		i.opts.NoRoot += ": " + err.Error()
		return nil
	case err != nil:
		i.opts.NoRoot = "the virtual machine that was to mount the root failed"
		return err
	}
	own := i.report.Disk
	i.report.Disk = report.Disk
	i.report.Disk.Path, i.report.Disk.Format = own.Path, own.Format
	return nil
}

// takeOver enters a check that the guest made.
func (i *inspection) takeOver(c Check, findings []Finding) {
	if i.made(c.Name) {
		return
	}
	i.conclude(c, findings)
}
