package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install/mounted"
	"installer/rootfs/bootloader"
	"installer/rootfs/image"
)

// planMounted settles everything that can be settled before the first write.
func (r *run) planMounted(ctx context.Context) error {
	m := r.mounted
	if err := r.settleSpecs(); err != nil {
		return err
	}
	if err := r.planKargs(); err != nil {
		return err
	}
	if err := r.checkRoom(); err != nil && r.source.facts.inexact {
		if err := r.measureExactly(ctx); err != nil {
			return err
		}
	}
	if err := r.checkRoom(); err != nil {
		return err
	}
	entries := m.tree.Entries()
	if features := entries.Super.Unreadable(); features != 0 && r.opts.Bootloader == bootloader.GRUB {
		r.note("the %s on %s has features (%#x) that GRUB 2.06 does not read: whether the image's GRUB does must be seen", entries.Mount.FSType, entries.Mount.Point, features)
	}
	r.report.Plan = r.describeMountedPlan()
	if ask := r.opts.Confirm; ask != nil && !r.opts.DryRun && len(m.found) > 0 {
		return ask(ctx, r.report.Plan)
	}
	for _, f := range m.found {
		r.note("will be deleted: %s", f)
	}
	return nil
}

// settleSpecs settles how the installed system finds its file systems: as the
// options say, or the image's configuration, or else by their UUIDs.
func (r *run) settleSpecs() error {
	m, c := r.mounted, r.source.facts.config
	r.target.rootSpec = "UUID=" + m.tree.Root.Super.UUID
	if spec := firstOf(m.opts.RootMountSpec, c.RootMountSpec); spec != nil {
		r.target.rootSpec = *spec
	}
	if m.tree.Boot == nil {
		if spec := m.opts.BootMountSpec; spec != nil && *spec != "" {
			return &disk.RefusedError{Path: m.opts.Root, Reason: fmt.Sprintf(
				"--boot-mount-spec says that the system has its /boot on %s, but nothing is mounted on %s", *spec, filepath.Join(m.opts.Root, "boot"))}
		}
		return nil
	}
	r.target.bootSpec = "UUID=" + m.tree.Boot.Super.UUID
	if spec := firstOf(m.opts.BootMountSpec, c.BootMountSpec); spec != nil {
		r.target.bootSpec = *spec
	}
	for _, spec := range []*string{c.RootMountSpec, c.BootMountSpec} {
		if err := checkSpec(spec); err != nil {
			return r.sourceFault(fmt.Errorf("install configuration: %w", err))
		}
	}
	return nil
}

func firstOf(specs ...*string) *string {
	for _, spec := range specs {
		if spec != nil {
			return spec
		}
	}
	return nil
}

// describeMountedPlan gathers the plan.
func (r *run) describeMountedPlan() *Plan {
	p := r.imagePlan()
	t := r.mounted.tree
	p.Device, p.Model, p.Size = t.Root.Mount.Point, t.Root.Mount.FSType+" on "+t.Root.Device, r.report.Disk.Size
	p.Found, p.Mounted, p.RootNeed = r.mounted.found, r.report.Disk.Mounted, r.source.facts.need.mountedRoot(r.opts.Filesystem)
	return p
}

// checkRoom refuses file systems that the image does not fit on.
func (r *run) checkRoom() error {
	t, facts := r.mounted.tree, r.source.facts
	wiped := r.mounted.opts.Replace == ReplaceWipe
	if err := hasRoom(t.Root, wiped, facts.need.mountedRoot(r.opts.Filesystem), facts.need.inodes); err != nil {
		return err
	}
	replaced := r.mounted.opts.Replace != ReplaceNone
	if t.Boot != nil {
		if err := hasRoom(*t.Boot, replaced, facts.bootFiles+bootRoom, 0); err != nil {
			return err
		}
	}
	if t.ESP != nil && r.target.firmware.UEFI {
		need := int64(bootRoom)
		if r.opts.Bootloader == bootloader.SystemdBoot {
			need += facts.bootFiles
		}
		return hasRoom(*t.ESP, replaced, need, 0)
	}
	return nil
}

// bootRoom is what boot loaders and boot entries take beside the kernel's files, in bytes.
const bootRoom = 16 * mib

// hasRoom compares what is free, or will be when all is deleted, with the need.
func hasRoom(f mounted.Filesystem, cleared bool, need, inodes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.Mount.Point, &st); err != nil {
		return fmt.Errorf("reading the free space of %s: %w", f.Mount.Point, err)
	}
	free, nodes := int64(st.Bfree)*st.Bsize, int64(st.Ffree)
	if cleared {
		free, nodes = int64(st.Blocks)*st.Bsize, int64(st.Files)
	}
	switch {
	case free < need:
		return &disk.RefusedError{Path: f.Mount.Point, Reason: fmt.Sprintf(
			"its %s is too small: %d bytes (%s) are needed, %d (%s) are free", f.Mount.FSType, need, FormatBytes(need), free, FormatBytes(free))}
	case st.Files > 0 && nodes < inodes: // btrfs and FAT have no fixed number
		return &disk.RefusedError{Path: f.Mount.Point, Reason: fmt.Sprintf(
			"its %s has too few inodes: %d are needed, %d are free", f.Mount.FSType, inodes, nodes)}
	}
	return nil
}

// bootBytes is what the kernel's files take that are copied to a boot file system.
func bootBytes(tree *image.Tree) int64 {
	var sum int64
	modules := tree.Lookup("usr/lib/modules")
	if modules == nil {
		return 0
	}
	for _, version := range modules.Names() {
		for _, name := range []string{"vmlinuz", "initramfs.img", "initramfs", "devicetree", "dtb"} {
			if n := modules.Lookup(version + "/" + name); n != nil {
				sum += n.Size
				_, _, _, bytes := (&image.Tree{Root: n}).Stats()
				sum += bytes
			}
		}
	}
	return sum
}

// mountedFirmware says which firmware can be served on the file systems that were
// given, and is: all that can on a generic image, else the kind that started this
// machine if it can be.
func (r *run) mountedFirmware() (bootloader.Firmware, error) {
	m := r.mounted
	can := bootloader.Firmware{
		UEFI: m.tree.ESP != nil,
		BIOS: r.opts.Bootloader == bootloader.GRUB && r.arch() == "amd64" && m.place != nil && m.place.BIOSBoot != nil,
	}
	if r.opts.Bootloader == bootloader.None {
		return bootloader.Firmware{}, nil
	}
	this := bootloader.Firmware{UEFI: startedByUEFI(), BIOS: !startedByUEFI()}
	switch {
	case !can.UEFI && !can.BIOS:
		return can, m.noFirmware(r.opts.Bootloader, r.arch())
	case r.opts.GenericImage, r.foreign():
		return can, nil
	case can.UEFI && this.UEFI || can.BIOS && this.BIOS:
		return this, nil
	}
	r.note("this machine was started by %s, which these file systems have no place for a boot loader for: it is installed for %s alone", this, can)
	return can, nil
}

// noFirmware says what is missing for a boot loader.
func (m *mountedTarget) noFirmware(kind bootloader.Kind, arch string) error {
	reason := "there is no place for a boot loader: for UEFI mount the EFI system partition on " + filepath.Join(m.opts.Root, "boot/efi")
	if kind == bootloader.GRUB && arch == "amd64" {
		switch {
		case m.noPlace != nil:
			reason += fmt.Sprintf("; for BIOS %s must be on a partition of a disk with a GPT, which it is not (%v)", m.tree.Entries().Mount.Point, m.noPlace)
		default:
			reason += fmt.Sprintf("; for BIOS %s needs a BIOS boot partition (type %s)", m.place.Disk, disk.TypeBIOSBoot)
		}
	}
	return &disk.RefusedError{Path: m.opts.Root, Reason: reason + fmt.Sprintf("; or leave the boot loader to yourself by --bootloader=%s", bootloader.None)}
}

// openBootSite opens what a boot loader is written to.
func (r *run) openBootSite() error {
	m := r.mounted
	entries := m.tree.Entries()
	r.target.site = bootSite{entriesUUID: entries.Super.UUID}
	site := &r.target.site
	if m.place != nil {
		site.entriesNumber, site.sectorSize = m.place.Number, m.place.SectorSize
	}
	if esp := m.tree.ESP; esp != nil {
		dir, err := r.openRootOf("EFI system partition", esp.Mount.Point)
		if err != nil {
			return err
		}
		site.esp = dir
		// On another disk it is of no use to a BIOS that starts this one.
		if place, err := mounted.Beneath(esp.Number); err == nil && m.place != nil && place.Disk == m.place.Disk {
			site.espNumber = place.Number
		}
	}
	if r.target.firmware.BIOS {
		return r.openBIOSSite(site)
	}
	return nil
}

// openBIOSSite opens the disk beneath, for boot code outside of file systems, and
// the directory boot.
func (r *run) openBIOSSite(site *bootSite) error {
	m := r.mounted
	site.bios = &bootloader.Range{Start: m.place.BIOSBoot.Start, Size: m.place.BIOSBoot.Size}
	boot := filepath.Join(m.opts.Root, "boot")
	if err := os.Mkdir(boot, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the directory boot: %w", err)
	}
	dir, err := r.openRootOf("directory boot", boot)
	if err != nil {
		return err
	}
	site.bootDir = dir
	f, err := os.OpenFile(m.place.Disk, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the disk beneath %s: %w", m.tree.Entries().Mount.Point, err)
	}
	r.hold("disk beneath", func() error { return errors.Join(f.Sync(), f.Close()) })
	site.disk = f
	return nil
}

// openRootOf opens a directory of the target for boot files.
func (r *run) openRootOf(what, path string) (*bootloader.Directory, error) {
	released := r.ledger.Opened("fd", path)
	root, err := os.OpenRoot(path)
	if err != nil {
		released()
		return nil, fmt.Errorf("opening the %s: %w", what, err)
	}
	r.hold(what, func() error { defer released(); return root.Close() })
	return bootloader.NewDirectory(root), nil
}
