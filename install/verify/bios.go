package verify

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Places in GRUB's boot images that its installer fills in: boot.img in the first sector of the
// disk, diskboot.img in the first sector of core.img.
const (
	biosSector    = 512
	bootLoadsLBA  = 0x5c // u64: where core.img begins
	coreBlockList = 0x1f4
	coreSegment   = 0x820
)

// grubConfig is where GRUB for BIOS has its configuration on a disk without an EFI system
// partition.
const grubConfig = "boot/grub/grub.cfg"

// peersConfig is the configuration that bootupd and distributions make.
const peersConfig = "boot/grub2/grub.cfg"

// checkBIOS follows the boot code from the boot sector to the BIOS boot partition.
func checkBIOS(f *findings, disk device, l *layout) error {
	switch {
	case !l.bootCode && l.bios == nil:
		f.notApplicable("no BIOS boot partition and no boot code: the disk starts under UEFI only")
		return nil
	case !l.bootCode:
		f.notApplicable("no boot code: the disk starts under UEFI only")
		return nil
	case l.bios == nil:
		f.fault("boot sector", "it has boot code, but there is no BIOS boot partition with the rest of it")
		return nil
	}
	boot, core := make([]byte, biosSector), make([]byte, biosSector)
	if _, err := disk.ReadAt(boot, 0); err != nil {
		return err
	}
	if _, err := disk.ReadAt(core, l.bios.Start); err != nil {
		return err
	}
	l.grub = bytes.Contains(boot[:440], []byte("GRUB "))
	if !l.grub {
		f.note("boot sector", "its boot code is not GRUB's, and was not checked")
		return nil
	}
	checkBootSector(f, l.bios, boot)
	checkCore(f, l.bios, core)
	return nil
}

func checkBootSector(f *findings, bios *Partition, boot []byte) {
	start := uint64(bios.Start / biosSector)
	if got := binary.LittleEndian.Uint64(boot[bootLoadsLBA:]); got != start {
		f.fault("boot sector", "its boot code loads LBA %d, and %s begins at %d", got, bios, start)
	}
	if boot[0] != 0xeb {
		f.fault("boot sector", "its boot code begins with %#02x, not with a jump", boot[0])
	}
}

// checkCore checks the list of blocks that core.img loads itself by.
func checkCore(f *findings, bios *Partition, core []byte) {
	le := binary.LittleEndian
	first, sectors, segment := le.Uint64(core[coreBlockList:]), int64(le.Uint16(core[coreBlockList+8:])), le.Uint16(core[coreBlockList+10:])
	where := bios.String()
	switch {
	case allZero(core):
		f.fault(where, "it is empty, and the boot sector loads GRUB's core image from it")
		return
	case first != uint64(bios.Start/biosSector)+1:
		f.fault(where, "GRUB's core image loads its rest from LBA %d, which is not where it is", first)
		return
	case sectors == 0 || (sectors+1)*biosSector > bios.Size:
		f.fault(where, "GRUB's core image claims %d sectors, and the partition has %d", sectors+1, bios.Size/biosSector)
		return
	case segment != coreSegment:
		f.fault(where, "GRUB's core image is loaded to segment %#x, not %#x", segment, coreSegment)
	}
	f.say("GRUB's core image of %d bytes is where the boot sector looks for it", (sectors+1)*biosSector)
}

// biosGRUB reports whether GRUB starts a disk without an EFI system partition.
func (l *layout) biosGRUB(t tree) bool {
	return l.biosOnly() && (l.grub || t.isRegular(grubConfig))
}

// checkBootConfig checks GRUB's configuration where no EFI system partition has it.
func checkBootConfig(f *findings, l *layout, t tree) {
	switch {
	case l.esp != nil && l.grub && l.shimmed() && l.ownConfigured(): // the one on the partition is a signed GRUB's
	case l.esp != nil:
		f.notApplicable("the EFI system partition has it")
		return
	case !l.biosGRUB(t):
		f.notApplicable("no GRUB is there to read it")
		return
	}
	name := grubConfig
	if !t.isRegular(name) && t.isRegular(peersConfig) {
		name = peersConfig
	}
	text, err := t.read(name)
	if err != nil {
		f.fault("/"+grubConfig, "the boot sector starts GRUB, which has no configuration: %v", err)
		return
	}
	judgeGRUBConfig(f, l, "/"+name, string(text))
	f.say("it looks for the boot entries on %s", strings.Join(l.entriesOn(), " "))
}
