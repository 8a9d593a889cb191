package install

import (
	"context"

	"installer/finalize"
)

// firstWrite is the step before which nothing has been written.
const firstWrite = "partition"

// toDiskSteps is what an installation to a disk does, in order. Whatever can
// be refused is refused before the first step that writes.
func toDiskSteps() []step {
	return []step{
		{"open-source", "Opening the source image", (*run).openSource},
		{"claim-disk", "Claiming the disk", (*run).claimDisk},
		{"inspect", "Looking through the image", (*run).inspect},
		{"plan", "Planning the disk", (*run).plan},
		{firstWrite, "Partitioning", (*run).partition},
		{"format", "Making file systems", (*run).format},
		{"mount", "Mounting the root", (*run).mountRoot},
		{"import", "Writing the image's content", (*run).importImage},
		{"deploy", "Deploying", (*run).deploy},
		{"bound-images", "Copying the images that it binds", (*run).copyBound},
		{"boot-loader", "Installing the boot loader", (*run).installBootloader},
		{"finalize", "Releasing the disk", (*run).finalize},
		{"reveal", "Making the disk one that starts", (*run).reveal},
		{"hand-over", "Handing the disk over", (*run).handOver},
	}
}

// ToDisk installs an image on a whole disk. It expects to run as root in a
// mount namespace of its own, and as the reaper of its orphaned descendants.
// The report is complete as far as the run came, also with an error; nothing
// stays acquired in either case, but for a target that is held: it stays mounted
// in the process's namespace, and goes with that. Errors to look for with errors.As:
// [*finalize.HeldError], the refusals of package disk, [*image.SourceError].
func ToDisk(ctx context.Context, o Options, observe Observer) (*Report, error) {
	r := &run{opts: o, ledger: finalize.NewLedger(), observer: observe}
	r.report = &Report{
		Version: ReportVersion,
		Source:  SourceReport{Reference: o.Source.String()},
		Disk:    DiskReport{Path: o.Device, Filesystem: o.Filesystem, Bootloader: o.Bootloader},
	}
	if o.DryRun {
		return r.report, r.rehearse(ctx, before(toDiskSteps(), firstWrite))
	}
	err := r.perform(ctx, toDiskSteps())
	return r.report, err
}
