package install

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"installer/disk"
	"installer/install/confine"
	"installer/rootfs/bootloader"

	"github.com/google/uuid"
)

// wholeDisk is the disk that to-disk takes, partitions and hands over.
type wholeDisk struct {
	paths     workspace
	workspace *undo
	claimed   *disk.Disk
	claim     *undo
	found     []disk.Found // on the disk, before
	layout    disk.Layout
	device    *disk.Device // of the root partition
}

// claimDisk takes the disk for the whole run, or refuses it. Nothing is written.
func (r *run) claimDisk(ctx context.Context) error {
	paths, err := r.openWorkspace()
	if err != nil {
		return err
	}
	r.disk.paths, r.target.root = paths, paths.root()
	d, err := disk.Open(r.opts.Device, disk.NodeDir(paths.nodes()))
	if err != nil {
		return nameUsers(ctx, err)
	}
	r.disk.claimed = d
	r.disk.claim = r.journal.add("gave up the claim on "+d.Path(), d.Close)
	if err := r.checkKind(); err != nil {
		return err
	}
	r.report.Disk.Path, r.report.Disk.Size, r.report.Disk.SectorSize = d.Path(), d.Size(), d.SectorSize()
	if r.disk.found, err = d.Contents(); err != nil {
		return err
	}
	if len(r.disk.found) > 0 && !r.opts.Wipe {
		return &disk.NotEmptyError{Path: d.Path(), Found: r.disk.found}
	}
	r.say("%s, %s", d.Model(), FormatBytes(d.Size()))
	return nil
}

// checkKind keeps a mistyped path from being taken for the other kind of target.
func (r *run) checkKind() error {
	switch path, block := r.disk.claimed.Path(), r.disk.claimed.IsBlock(); {
	case block && r.opts.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a block device, and --via-loopback is for a raw disk file; to do: leave that flag out"}
	case !block && !r.opts.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a file, not a block device; to do: say --via-loopback if that is what you want"}
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
	r.disk.layout = layout
	r.report.Disk.Partitions = layout.Partitions
	r.target.rootUUID = uuid.NewString()
	r.target.rootSpec = "UUID=" + r.target.rootUUID
	r.report.Disk.RootUUID = r.target.rootUUID
	if err := r.planKargs(); err != nil {
		return err
	}
	r.report.Plan = r.describePlan()
	return r.confirm(ctx)
}

func (r *run) layOut() (disk.Layout, error) {
	d := r.disk.claimed
	return disk.Plan(d.Size(), d.SectorSize(), disk.PlanOptions{
		Arch:     r.arch(),
		BIOSBoot: r.arch() == "amd64",
		ESPSize:  r.espSize(),
		RootSize: r.opts.RootSize,
		MinRoot:  r.source.facts.need.root(r.opts.Filesystem),
	})
}

// espSize is what the EFI system partition needs, in bytes: systemd-boot has the kernel's files on it.
func (r *run) espSize() int64 {
	const others = 32 * mib // the loader twice, entries, and what FAT32 takes itself beside a hundredth
	if files := r.source.facts.bootFiles; r.opts.Bootloader == bootloader.SystemdBoot {
		return max(disk.DefaultESPSize, (files+files/100+others+mib-1)/mib*mib)
	}
	return disk.DefaultESPSize
}

// confirm asks before something is lost: what is on a disk, or a disk that
// another one was meant by. An empty file is neither.
func (r *run) confirm(ctx context.Context) error {
	ask := r.opts.Confirm
	if ask == nil || r.opts.DryRun || !r.disk.claimed.IsBlock() && len(r.disk.found) == 0 {
		for _, f := range r.disk.found {
			r.note("will be overwritten: %s", f)
		}
		return nil
	}
	return ask(ctx, r.report.Plan)
}

func (r *run) partition(context.Context) error {
	return r.disk.claimed.WriteTable(r.disk.layout)
}

// format makes the file systems. The EFI system partition is written without
// being mounted; the root gets a loop device of its own, whose release is the
// finalize pipeline's last stage.
func (r *run) format(ctx context.Context) error {
	d := r.disk.claimed
	espPart, err := r.findPartition(disk.NameESP)
	if err != nil {
		return err
	}
	esp, err := d.FAT(espPart, "EFI-SYSTEM")
	if err != nil {
		return err
	}
	r.holdDraft("EFI system partition", esp.Close, esp.Discard)
	if err := r.withhold(esp); err != nil {
		return err
	}

	rootPart, err := r.findPartition(disk.NameRoot)
	if err != nil {
		return err
	}
	dev, err := d.Attach(rootPart)
	if err != nil {
		return err
	}
	r.disk.device = dev
	r.target.site = r.diskSite(esp, espPart.Number, rootPart.Number)
	r.system.device = r.journal.add("detached "+dev.Path(), dev.Detach)
	return r.opts.Filesystem.Make(ctx, confine.Run, dev.Path(), disk.MakeOptions{UUID: r.target.rootUUID, Label: "root"})
}

// bootCode is where BIOS firmware begins, in bytes: the first sector up to where the partition table's part begins.
const bootCode = 440

// withhold keeps what a machine would start by from the disk until all else is there: first what UEFI looks for, then
// what BIOS does, whose loader reads the EFI system partition too.
func (r *run) withhold(esp *disk.FAT) error {
	if err := esp.Withhold(); err != nil {
		return err
	}
	return r.disk.claimed.Withhold(0, bootCode)
}

// reveal makes the disk one that starts. All that it starts is on the disk by then, and flushed: wherever the power
// goes, no machine starts half a system.
func (r *run) reveal(context.Context) error { return r.disk.claimed.Reveal() }

func (r *run) findPartition(name string) (disk.Partition, error) {
	p, ok := r.disk.layout.Find(name)
	if !ok {
		return p, fmt.Errorf("the layout has no partition %q", name)
	}
	return p, nil
}

// handOver makes the kernel's view of a block device agree with its new table, and
// ends the claim. It is not part of finalize: the proofs are made under the claim.
func (r *run) handOver(context.Context) error {
	d := r.disk.claimed
	var errs []error
	if d.IsBlock() {
		errs = append(errs, d.Announce(r.disk.layout))
	}
	r.journal.drop(r.disk.claim)
	errs = append(errs, d.Close())
	r.journal.drop(r.disk.workspace)
	errs = append(errs, r.disk.paths.close())
	return errors.Join(errs...)
}

// diskSite is where a boot loader goes on the disk: GRUB finds the boot entries on the root.
func (r *run) diskSite(esp bootloader.ESP, espNumber, rootNumber int) bootSite {
	site := bootSite{
		esp: esp, espNumber: espNumber,
		entriesUUID: r.target.rootUUID, entriesNumber: rootNumber,
		disk: r.disk.claimed, sectorSize: r.disk.claimed.SectorSize(),
	}
	if bios, ok := r.disk.layout.Find(disk.NameBIOSBoot); ok {
		site.bios = &bootloader.Range{Start: bios.Start, Size: bios.Size}
	}
	return site
}

// diskFirmware says for which firmware a boot loader is installed on a whole disk: for all on a
// generic image, or one of another architecture, else for the one that started this machine.
func (r *run) diskFirmware() bootloader.Firmware {
	hasBIOS := r.arch() == "amd64"
	if r.opts.GenericImage || r.foreign() {
		return bootloader.Firmware{UEFI: true, BIOS: hasBIOS && r.opts.Bootloader == bootloader.GRUB}
	}
	if startedByUEFI() || !hasBIOS || r.opts.Bootloader == bootloader.SystemdBoot {
		return bootloader.Firmware{UEFI: true}
	}
	return bootloader.Firmware{BIOS: true}
}
