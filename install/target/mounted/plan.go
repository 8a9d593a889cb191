package mounted

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install/choice"
	"installer/install/size"
	"installer/install/target"
)

// Plan refuses file systems that the image does not fit on.
func (m *Mounted) Plan(_ context.Context, c *choice.Choice, need target.Need) (*target.Plan, error) {
	if err := m.checkLabels(c.Labelled); err != nil {
		return nil, err
	}
	if err := m.checkRoom(c, need); err != nil {
		return nil, err
	}
	if root := m.tree.Root; need.Overlays && !root.Super.EntryTypes() {
		return nil, refuse(m.o.Root, fmt.Sprintf("the image binds other images, whose storage needs types in directory entries, and the %s on %s has none (ftype=1 of an xfs, filetype of an ext4); --bound-images=skip installs without them",
			root.Super.Type, root.Device))
	}
	if c.Root.Verity {
		if err := disk.CheckMadeVerity(m.tree.Root.Device, m.tree.Root.Super); err != nil {
			return nil, err
		}
	}
	if err := m.openDisk(c); err != nil {
		return nil, err
	}
	m.choice = c
	t := m.tree
	p := &target.Plan{
		Device: t.Root.Mount.Point, Model: t.Root.Mount.FSType + " on " + t.Root.Device,
		Found: m.found, RootNeed: need.Free(c.Filesystem), Ask: len(m.found) > 0, Lost: "will be deleted",
	}
	entries := t.Entries()
	if features := entries.Super.Unreadable(); features != 0 && c.Bootloader.ReadsBoot() {
		p.Notes = append(p.Notes, fmt.Sprintf("the %s on %s has features (%#x) that GRUB 2.06 does not read: whether the image's GRUB does must be seen",
			entries.Mount.FSType, entries.Mount.Point, features))
	}
	return p, nil
}

// openDisk opens the disk beneath the file systems, for boot code outside of them. Nothing is
// written.
func (m *Mounted) openDisk(c *choice.Choice) error {
	if !c.Firmware.BIOS || m.beneath != nil {
		return nil
	}
	f, err := os.OpenFile(m.place.Disk, os.O_RDWR, 0)
	if err != nil {
		return &disk.RefusedError{Path: m.o.Root, Reason: fmt.Sprintf("boot code for BIOS goes to the disk beneath, which cannot be opened for writing: %v", err)}
	}
	m.journal.Hold("disk beneath", func() error { return errors.Join(f.Sync(), f.Close()) })
	m.beneath = f
	return nil
}

// bootRoom is the size of boot loaders and boot entries beside the kernel's files, in bytes.
const bootRoom = 16 << 20

func (m *Mounted) checkRoom(c *choice.Choice, need target.Need) error {
	if err := hasRoom(m.tree.Root, m.o.Replace == ReplaceWipe, need.Free(c.Filesystem), need.Inodes); err != nil {
		return err
	}
	replaced := m.o.Replace != ReplaceNone
	if boot := m.tree.Boot; boot != nil {
		if err := hasRoom(*boot, replaced, need.Boot+bootRoom, 0); err != nil {
			return err
		}
	}
	if esp := m.tree.ESP; esp != nil && c.Firmware.UEFI {
		room := int64(bootRoom)
		if c.Bootloader.KernelOnESP() {
			room += need.Boot
		}
		return hasRoom(*esp, replaced, room, 0)
	}
	return nil
}

// hasRoom compares the free space, or the space after all is deleted, with the need.
func hasRoom(f Filesystem, cleared bool, need, inodes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.Mount.Point, &st); err != nil {
		return fmt.Errorf("reading the free space of %s: %w", f.Mount.Point, err)
	}
	free, nodes := int64(st.Bfree)*st.Bsize, int64(st.Ffree)
	if cleared {
		free, nodes = int64(st.Blocks)*st.Bsize, int64(st.Files)
	}
	reason := ""
	switch {
	case free < need:
		reason = fmt.Sprintf("its %s is too small: %d bytes (%s) are needed, %d (%s) are free", f.Mount.FSType, need, size.Format(need), free, size.Format(free))
	case st.Files > 0 && nodes < inodes: // btrfs and FAT have no fixed number
		reason = fmt.Sprintf("its %s has too few inodes: %d are needed, %d are free", f.Mount.FSType, inodes, nodes)
	default:
		return nil
	}
	return &target.NoRoomError{Err: &disk.RefusedError{Path: f.Mount.Point, Reason: reason}}
}
