// Package wholedisk is a target that is a disk, or a raw disk file: it is claimed, partitioned,
// formatted, mounted in this process's own mount namespace, released with the proof that nobody
// holds it, and handed over. Tables, file systems and loop devices are made by package disk; the
// content of the root belongs elsewhere.
package wholedisk

import (
	"context"
	"os"

	"github.com/google/uuid"

	"installer/disk"
	"installer/finalize"
	"installer/install/choice"
	"installer/install/journal"
	"installer/install/size"
	"installer/install/target"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
)

// Options are the wishes of the user for a whole disk.
type Options struct {
	Device      string // block device, or raw disk file with ViaLoopback
	ViaLoopback bool   // Device is a file
	Wipe        bool   // overwrite existing content
	RootSize    int64  // bytes; 0 = all that is left
	WorkDir     string // empty directory of this process's private mount namespace, for mount points and device nodes
}

// Disk is a whole disk.
type Disk struct {
	o       Options
	journal *journal.Journal
	ledger  *finalize.Ledger
	log     journal.Log

	paths     workspace
	workspace *journal.Undo
	claimed   *disk.Disk
	claim     *journal.Undo
	found     []disk.Found // on the disk, before
	rootUUID  string
	// unlabelled are the mount options with which SELinux stores no labels, of a system without any.
	unlabelled []string

	choice *choice.Choice // since Plan
	layout disk.Layout
	room   disk.Space // that the image takes on the root

	esp    *disk.FAT // since Prepare
	device *disk.Device
	loop   *journal.Undo // of device
	mount  *journal.Undo
	root   *os.File
}

var _ target.Target = (*Disk)(nil)

// New makes a target of the disk that o names. The process must be in a mount namespace of its own.
func New(o Options, j *journal.Journal, l *finalize.Ledger, log journal.Log) *Disk {
	return &Disk{o: o, journal: j, ledger: l, log: log}
}

// Words implements target.Target.
func (d *Disk) Words() target.Words { return words() }

func words() target.Words {
	return target.Words{LookName: "claim-disk", Look: "Claiming the disk", Plan: "Planning the disk", Release: "Releasing the disk"}
}

// Look claims the disk for the whole run, or refuses it.
func (d *Disk) Look(ctx context.Context) (*target.Look, error) {
	if err := d.openWorkspace(); err != nil {
		return nil, err
	}
	claimed, err := disk.Open(d.o.Device, disk.NodeDir(d.paths.nodes()))
	if err != nil {
		return nil, nameUsers(ctx, err)
	}
	d.claimed = claimed
	d.claim = d.journal.Add("gave up the claim on "+claimed.Path(), claimed.Close)
	if err := d.checkKind(); err != nil {
		return nil, err
	}
	if d.found, err = claimed.Contents(); err != nil {
		return nil, err
	}
	if len(d.found) > 0 && !d.o.Wipe {
		return nil, &disk.NotEmptyError{Path: claimed.Path(), Found: d.found}
	}
	if d.unlabelled, err = target.Unlabelled(d.paths.dir); err != nil {
		return nil, err
	}
	d.rootUUID = uuid.NewString()
	return &target.Look{
		Message: claimed.Model() + ", " + size.Format(claimed.Size()),
		Path:    claimed.Path(), Size: claimed.Size(), SectorSize: claimed.SectorSize(),
		Place: choice.Place{Path: claimed.Path(), RootUUID: d.rootUUID},
	}, nil
}

// checkKind keeps a mistyped path from being taken for the other kind of target.
func (d *Disk) checkKind() error {
	switch path, block := d.claimed.Path(), d.claimed.IsBlock(); {
	case block && d.o.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a block device, and --via-loopback is for a raw disk file; to do: leave that flag out"}
	case !block && !d.o.ViaLoopback:
		return &disk.RefusedError{Path: path, Reason: "it is a file, not a block device; to do: say --via-loopback if you mean the file"}
	}
	return nil
}

// Root implements target.Target.
func (d *Disk) Root() *target.Root {
	return &target.Root{Path: d.paths.root(), Dir: beneath.Of(d.root, d.ledger), Boot: d.bootTarget()}
}

// bootTarget describes where a boot loader goes on the disk: GRUB finds the boot entries on the
// root.
func (d *Disk) bootTarget() bootloader.Target {
	esp, _ := d.layout.Find(disk.NameESP)
	root, _ := d.layout.Find(disk.NameRoot)
	t := bootloader.Target{
		ESP: d.esp, ESPPartition: esp.Number,
		BootUUID: d.rootUUID, BootPartition: root.Number,
		Disk: d.claimed, SectorSize: d.claimed.SectorSize(),
	}
	if bios, ok := d.layout.Find(disk.NameBIOSBoot); ok {
		t.BIOSBoot = &bootloader.Range{Start: bios.Start, Size: bios.Size}
	}
	return t
}

// Where implements target.Target.
func (d *Disk) Where() string {
	switch {
	case d.device != nil:
		return "the disk is " + d.claimed.Path() + ", its root " + d.device.Path()
	case d.claimed != nil:
		return "the disk is " + d.claimed.Path()
	}
	return ""
}

// Proven implements target.Target.
func (d *Disk) Proven() bool { return true }

// Left implements target.Target: a disk that is not complete does not start.
func (d *Disk) Left(bool) string { return "" }
