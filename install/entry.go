package install

import (
	"context"
	"errors"

	"installer/install/place"
	"installer/install/target/mounted"
	"installer/install/target/wholedisk"
	"installer/rootfs/image"
)

// ToDisk installs an image on a whole disk. It expects to run as root in a mount namespace of its
// own. The report is complete as far as the run came, also with an error; nothing stays acquired in
// either case, but for a target that is held: it stays mounted in the process's namespace, and goes
// with that. Errors to look for with errors.As: [*finalize.HeldError], the refusals of package
// disk, [*image.SourceError].
func ToDisk(ctx context.Context, o Options, observe Observer) (*Report, error) {
	r := newRun(o, o.Device, observe)
	r.report.Disk.Filesystem = o.Filesystem
	return perform(ctx, &installation{
		run: r, opts: o, wishes: o.choice(), job: place.ToDisk,
		target: wholedisk.New(o.wholeDisk(), &r.journal, r.ledger, r),
	})
}

// ToFilesystem installs an image on file systems that the caller has mounted, in the mount
// namespace that they are mounted in. It expects to run as root. The mounts are the caller's: they
// stay, read-only and with nobody holding them, or writable with SkipFinalize, with which the
// outcome is Unproven. The report is complete as far as the run came, also with an error. Errors to
// look for with errors.As: [*finalize.HeldError], [*disk.RefusedError], [*image.SourceError].
func ToFilesystem(ctx context.Context, o Options, m MountedOptions, observe Observer) (*Report, error) {
	r := newRun(o, m.Root, observe)
	wishes := o.choice()
	wishes.RootMountSpec, wishes.BootMountSpec = m.RootMountSpec, m.BootMountSpec
	return perform(ctx, &installation{
		run: r, opts: o, wishes: wishes, job: place.ToFilesystem,
		target: mounted.New(m.mounted(), &r.journal, r.ledger, r),
	})
}

// PlannedDisk is a disk that a virtual machine will have.
type PlannedDisk = wholedisk.Planned

// PlanDisk does the part of ToDisk before the first write for a disk of a virtual machine, in which
// the programs of the image will make the file systems: whatever ToDisk would refuse there is
// refused. It needs no privilege. img is the source, which stays open. The report is complete as
// far as it came, also with an error; the survey of the source, whose merged tree will stand in
// dir, spares the machine the same work.
func PlanDisk(ctx context.Context, o Options, img *image.Image, d PlannedDisk, dir string, observe Observer) (*Report, *Survey, error) {
	r := newRun(o, d.Path, observe)
	r.report.Disk.Filesystem = o.Filesystem
	i := &installation{run: r, opts: o, wishes: o.choice(), target: &d, image: img}
	r.where = i.target.Where
	if err := r.rehearse(ctx, i.looking()); err != nil {
		return r.report, nil, err
	}
	return r.report, i.source.Survey(dir, i.inventory, i.need), nil
}

func perform(ctx context.Context, i *installation) (*Report, error) {
	r := i.run
	r.where = i.target.Where
	if i.opts.DryRun {
		return r.report, r.rehearse(ctx, i.looking())
	}
	steps := append(i.looking(), i.writing()...)
	err := r.perform(ctx, steps)
	switch {
	case err != nil:
		if left := i.target.Left(r.step.Name == releaseStep); left != "" {
			err = errors.Join(err, errors.New(left))
		}
		r.report.Error = err.Error()
	case !i.target.Proven():
		r.report.Outcome = Unproven
	}
	return r.report, err
}
