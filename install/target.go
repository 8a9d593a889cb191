package install

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"installer/disk"
	"installer/install/confine"
	"installer/rootfs/bootloader"

	"github.com/google/uuid"
)

// target is the disk that is installed to.
type target struct {
	paths     workspace
	workspace *undo
	disk      *disk.Disk
	claim     *undo
	found     []disk.Found // on the disk, before
	layout    disk.Layout
	kargs     []string
	esp       *disk.FAT
	root      *disk.Device
	rootUUID  string
}

// claimDisk takes the disk for the whole run, or refuses it. Nothing is written.
func (r *run) claimDisk(ctx context.Context) error {
	paths, err := r.openWorkspace()
	if err != nil {
		return err
	}
	r.target.paths = paths
	d, err := disk.Open(r.opts.Device, disk.NodeDir(paths.nodes()))
	if err != nil {
		return nameUsers(ctx, err)
	}
	r.target.disk = d
	r.target.claim = r.journal.add("gave up the claim on "+d.Path(), d.Close)
	if err := r.checkKind(); err != nil {
		return err
	}
	r.report.Disk.Path, r.report.Disk.Size, r.report.Disk.SectorSize = d.Path(), d.Size(), d.SectorSize()
	if r.target.found, err = d.Contents(); err != nil {
		return err
	}
	if len(r.target.found) > 0 && !r.opts.Wipe {
		return &disk.NotEmptyError{Path: d.Path(), Found: r.target.found}
	}
	r.say("%s, %s", d.Model(), FormatBytes(d.Size()))
	return nil
}

// checkKind keeps a mistyped path from being taken for the other kind of target.
func (r *run) checkKind() error {
	switch path, block := r.target.disk.Path(), r.target.disk.IsBlock(); {
	case block && r.opts.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a block device, and --via-loopback is for a raw disk file: leave that flag out"}
	case !block && !r.opts.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a file, not a block device: say --via-loopback if that is what you want"}
	}
	return nil
}

// plan settles everything that can be settled before the first write.
func (r *run) plan(ctx context.Context) error {
	layout, err := r.layOut()
	if tooSmall := (*disk.TooSmallError)(nil); errors.As(err, &tooSmall) && r.source.facts.inexact {
		if err := r.measureExactly(ctx); err != nil {
			return err
		}
		layout, err = r.layOut()
	}
	if err != nil {
		return err
	}
	if err := r.opts.Filesystem.Require(exec.LookPath); err != nil {
		return err
	}
	r.target.layout = layout
	r.report.Disk.Partitions = layout.Partitions
	r.target.rootUUID = uuid.NewString()
	r.report.Disk.RootUUID = r.target.rootUUID
	if err := r.planKargs(); err != nil {
		return err
	}
	r.report.Plan = r.describePlan()
	return r.confirm(ctx)
}

func (r *run) layOut() (disk.Layout, error) {
	d := r.target.disk
	return disk.Plan(d.Size(), d.SectorSize(), disk.PlanOptions{
		Arch:     runtime.GOARCH,
		BIOSBoot: runtime.GOARCH == "amd64",
		RootSize: r.opts.RootSize,
		MinRoot:  r.source.facts.need.root(r.opts.Filesystem),
	})
}

// confirm asks before something is lost: what is on a disk, or a disk that
// another one was meant by. An empty file is neither.
func (r *run) confirm(ctx context.Context) error {
	ask := r.opts.Confirm
	if ask == nil || r.opts.DryRun || !r.target.disk.IsBlock() && len(r.target.found) == 0 {
		for _, f := range r.target.found {
			r.note("will be overwritten: %s", f)
		}
		return nil
	}
	return ask(ctx, r.report.Plan)
}

func (r *run) partition(context.Context) error {
	return r.target.disk.WriteTable(r.target.layout)
}

// format makes the file systems. The EFI system partition is written without
// being mounted; the root gets a loop device of its own, whose release is the
// finalize pipeline's last stage.
func (r *run) format(ctx context.Context) error {
	d := r.target.disk
	espPart, err := r.findPartition(disk.NameESP)
	if err != nil {
		return err
	}
	esp, err := d.FAT(espPart, "EFI-SYSTEM")
	if err != nil {
		return err
	}
	r.target.esp = esp
	r.hold("EFI system partition", esp.Close)

	rootPart, err := r.findPartition(disk.NameRoot)
	if err != nil {
		return err
	}
	dev, err := d.Attach(rootPart)
	if err != nil {
		return err
	}
	r.target.root = dev
	r.system.device = r.journal.add("detached "+dev.Path(), dev.Detach)
	return r.opts.Filesystem.Make(ctx, confine.Run, dev.Path(), disk.MakeOptions{UUID: r.target.rootUUID, Label: "root"})
}

func (r *run) findPartition(name string) (disk.Partition, error) {
	p, ok := r.target.layout.Find(name)
	if !ok {
		return p, fmt.Errorf("the layout has no partition %q", name)
	}
	return p, nil
}

// handOver makes the kernel's view of a block device agree with its new table, and
// ends the claim. It is not part of finalize: the proofs are made under the claim.
func (r *run) handOver(context.Context) error {
	d := r.target.disk
	var errs []error
	if d.IsBlock() {
		errs = append(errs, d.Announce(r.target.layout))
	}
	r.journal.drop(r.target.claim)
	errs = append(errs, d.Close())
	r.journal.drop(r.target.workspace)
	errs = append(errs, r.target.paths.close())
	return errors.Join(errs...)
}

// firmware says for which firmware a boot loader is installed: for all on a
// generic image, else for the one that started this machine.
func (r *run) firmware() bootloader.Firmware {
	hasBIOS := runtime.GOARCH == "amd64"
	if r.opts.GenericImage {
		return bootloader.Firmware{UEFI: true, BIOS: hasBIOS && r.opts.Bootloader == bootloader.GRUB}
	}
	if startedByUEFI() || !hasBIOS || r.opts.Bootloader == bootloader.SystemdBoot {
		return bootloader.Firmware{UEFI: true}
	}
	return bootloader.Firmware{BIOS: true}
}
