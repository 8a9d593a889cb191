package mounted

import (
	"context"
	"fmt"
	"os"

	"installer/install/target"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
)

// Prepare implements target.Target.
func (m *Mounted) Prepare() []target.Step {
	return []target.Step{{Name: "prepare", Title: "Preparing the file systems", Do: m.prepare}}
}

// prepare deletes replaced content, and opens the file systems for boot files.
func (m *Mounted) prepare(ctx context.Context) (string, error) {
	m.written = true
	if err := m.clear(ctx); err != nil {
		return "", err
	}
	opened := map[Role]*os.File{}
	for _, f := range m.tree.Filesystems()[1:] {
		dir, err := m.open(string(f.Role), f.Mount.Point)
		if err != nil {
			return "", err
		}
		opened[f.Role] = dir
	}
	return "", m.openBoot(opened[ESP])
}

// clear deletes replaced content.
func (m *Mounted) clear(ctx context.Context) error {
	if m.o.Replace == ReplaceNone {
		return nil
	}
	for _, f := range m.tree.Filesystems() {
		below := ""
		if f.Role == Root && m.o.Replace == ReplaceAlongside {
			below = "boot"
		}
		if err := Clear(ctx, f, below); err != nil {
			return err
		}
	}
	return nil
}

// openBoot opens the places of a boot loader. esp is nil where no EFI system partition is mounted.
func (m *Mounted) openBoot(esp *os.File) error {
	m.boot = bootloader.Target{BootUUID: m.tree.Entries().Super.UUID}
	if m.place != nil {
		m.boot.BootPartition, m.boot.SectorSize = m.place.Number, m.place.SectorSize
	}
	if esp != nil {
		m.boot.ESP = bootloader.NewDirectory(beneath.Of(esp, m.ledger))
		// On another disk it is of no use to a BIOS that starts this one.
		if place, err := Beneath(m.tree.ESP.Number); err == nil && m.place != nil && place.Disk == m.place.Disk {
			m.boot.ESPPartition = place.Number
		}
	}
	if m.choice.Firmware.BIOS {
		return m.openBIOS()
	}
	return nil
}

// openBIOS opens the directory boot, and passes on the disk beneath.
func (m *Mounted) openBIOS() error {
	m.boot.BIOSBoot = &bootloader.Range{Start: m.place.BIOSBoot.Start, Size: m.place.BIOSBoot.Size}
	if err := m.root.MkdirAll("boot", 0o755); err != nil {
		return fmt.Errorf("making the directory boot: %w", err)
	}
	boot, err := m.root.Sub("boot")
	if err != nil {
		return fmt.Errorf("opening the directory boot: %w", err)
	}
	m.journal.Hold("directory boot", func() error { boot.Close(); return nil })
	m.boot.BootDir = bootloader.NewDirectory(boot)
	m.boot.Disk = m.beneath
	return nil
}
