package wholedisk

import (
	"context"
	"errors"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/finalize"
	"installer/install/target"
)

// Release hands every handle on the disk to the pipeline that gives the disk back. From here on
// nothing is undone by force: where the pipeline stops, the mount stays as it was, and ends with
// this process's namespace.
func (d *Disk) Release(ctx context.Context, handles []finalize.Handle, observe func(finalize.StageResult)) (*finalize.Report, error) {
	major, minor := d.device.Number()
	pipeline := finalize.Pipeline{Stages: finalize.DiskStages()}
	released := finalize.Target{
		Mountpoint: d.paths.root(),
		Handles:    handles,
		Ledger:     d.ledger,
		Devices: []finalize.Device{{
			Path: d.device.Path(), Major: major, Minor: minor,
			FSType: string(d.choice.Filesystem), File: d.device.File(),
		}},
		Detach: []finalize.Detacher{d.device},
	}
	d.journal.Drop(d.mount)
	d.journal.Drop(d.loop)
	report, err := pipeline.Run(ctx, released, observe)
	if err != nil {
		d.leaveMounted()
	}
	return report, err
}

// leaveMounted keeps the undo from a target that the pipeline left mounted: a held file system
// cannot be unmounted, nor can its device be given back. All of it lies in the private mount
// namespace and goes with the process.
func (d *Disk) leaveMounted() {
	if _, err := mounts.At(d.paths.root()); err != nil {
		return // it is unmounted: the rest can be given back
	}
	d.journal.Drop(d.claim)
	d.journal.Drop(d.workspace)
	d.log.Note("left mounted in this process's own namespace: the mount and the loop device go when the process ends and nobody holds them")
}

// HandOver implements target.Target.
func (d *Disk) HandOver() []target.Step {
	return []target.Step{
		{Name: "reveal", Title: "Making the disk bootable", Do: d.reveal},
		{Name: "hand-over", Title: "Handing the disk over", Do: d.handOver},
	}
}

// reveal makes the disk bootable. Everything that starts with it is on the disk by then, and
// flushed: wherever the power goes, no machine starts half a system.
func (d *Disk) reveal(context.Context) (string, error) { return "", d.claimed.Reveal() }

// handOver makes the kernel's view of a block device agree with its new table, and ends the claim.
// It is not part of the release: the proofs are made under the claim.
func (d *Disk) handOver(context.Context) (string, error) {
	errs := []error{d.claimed.Announce(d.layout)}
	keeps, err := d.claimed.KeepsPartitions()
	errs = append(errs, err)
	var messages []string
	if d.claimed.IsBlock() && err == nil && !keeps {
		messages = append(messages, "the kernel lists no partitions of this kind of device; see losetup --partscan, or kpartx -a")
	}
	if number, ok := block.NumberOf(d.claimed.Path()); ok {
		stays, err := finalize.Beneath(number)
		errs = append(errs, err)
		if stays != "" {
			messages = append(messages, stays)
		}
	}
	d.journal.Drop(d.claim)
	errs = append(errs, d.claimed.Close())
	d.journal.Drop(d.workspace)
	errs = append(errs, d.paths.close())
	return strings.Join(messages, "; "), errors.Join(errs...)
}
