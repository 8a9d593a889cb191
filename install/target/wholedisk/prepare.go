package wholedisk

import (
	"context"
	"fmt"
	"os"

	"installer/disk"
	"installer/disk/mounts"
	"installer/install/confine"
	"installer/install/target"
)

// Prepare implements target.Target.
func (d *Disk) Prepare() []target.Step {
	return []target.Step{
		{Name: "partition", Title: "Partitioning", Do: d.partition},
		{Name: "format", Title: "Making file systems", Do: d.format},
		{Name: "mount", Title: "Mounting the root", Do: d.mountRoot},
	}
}

func (d *Disk) partition(context.Context) (string, error) { return "", d.claimed.WriteTable(d.layout) }

// format makes the file systems. The EFI system partition is written without being mounted; the
// root gets a loop device of its own, whose release is the finalize pipeline's last stage.
func (d *Disk) format(ctx context.Context) (string, error) {
	espPart, err := d.findPartition(disk.NameESP)
	if err != nil {
		return "", err
	}
	if d.esp, err = d.claimed.FAT(espPart, "EFI-SYSTEM"); err != nil {
		return "", err
	}
	d.journal.HoldDraft("EFI system partition", d.esp.Close, d.esp.Discard)
	if err := d.withhold(); err != nil {
		return "", err
	}
	rootPart, err := d.findPartition(disk.NameRoot)
	if err != nil {
		return "", err
	}
	dev, err := d.claimed.Attach(rootPart)
	if err != nil {
		return "", err
	}
	d.device = dev
	d.loop = d.journal.Add("detached "+dev.Path(), dev.Detach)
	o := disk.MakeOptions{UUID: d.rootUUID, Label: "root", GRUB: d.choice.Bootloader.ReadsBoot()}
	return "", d.choice.Filesystem.Make(ctx, confine.Run, dev.Path(), o)
}

func (d *Disk) findPartition(name string) (disk.Partition, error) {
	p, ok := d.layout.Find(name)
	if !ok {
		return p, fmt.Errorf("the layout has no partition %q", name)
	}
	return p, nil
}

// bootCode is where BIOS firmware begins, in bytes: the first sector up to where the partition
// table's part begins.
const bootCode = 440

// withhold keeps the files and the code that a machine would start from off the disk until all else
// is there: first those of UEFI, then those of BIOS, whose loader reads the EFI system partition
// too.
func (d *Disk) withhold() error {
	if err := d.esp.Withhold(); err != nil {
		return err
	}
	return d.claimed.Withhold(0, bootCode)
}

func (d *Disk) mountRoot(context.Context) (string, error) {
	dir := d.paths.root()
	if err := mounts.Make(mounts.Options{Source: d.device.Path(), FSType: string(d.choice.Filesystem), Target: dir, Data: d.unlabelled}); err != nil {
		return "", fmt.Errorf("mounting the new root: %w", err)
	}
	d.mount = d.journal.Add("unmounted the new root", func() error { return unmountAt(dir) })
	if d.choice.Filesystem == disk.XFS {
		d.failFast(d.device.Name())
	}
	if err := d.room.CheckFree(dir, d.choice.Filesystem); err != nil {
		return "", err
	}
	released := d.ledger.Opened("fd", dir)
	root, err := os.Open(dir)
	if err != nil {
		released()
		return "", fmt.Errorf("opening the new root: %w", err)
	}
	d.root = root
	d.journal.Hold("root directory", func() error { defer released(); return root.Close() })
	if err := root.Chmod(0o755); err != nil {
		return "", fmt.Errorf("setting the mode of the new root: %w", err)
	}
	return "", nil
}
