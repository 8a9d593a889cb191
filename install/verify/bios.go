package verify

import (
	"bytes"
	"context"
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
func (i *inspection) checkBIOS(context.Context) error {
	switch {
	case !i.bootCode && i.bios == nil:
		i.notApplicable("no BIOS boot partition and no boot code: the disk starts under UEFI only")
		return nil
	case !i.bootCode:
		i.notApplicable("no boot code: the disk starts under UEFI only")
		return nil
	case i.bios == nil:
		i.fault("boot sector", "it has boot code, but there is no BIOS boot partition with the rest of it")
		return nil
	}
	boot, core := make([]byte, biosSector), make([]byte, biosSector)
	if _, err := i.disk.ReadAt(boot, 0); err != nil {
		return err
	}
	if _, err := i.disk.ReadAt(core, i.bios.Start); err != nil {
		return err
	}
	i.grub = bytes.Contains(boot[:440], []byte("GRUB "))
	if !i.grub {
		i.note("boot sector", "its boot code is not GRUB's, and was not checked")
		return nil
	}
	i.checkBootSector(boot)
	i.checkCore(core)
	return nil
}

func (i *inspection) checkBootSector(boot []byte) {
	start := uint64(i.bios.Start / biosSector)
	if got := binary.LittleEndian.Uint64(boot[bootLoadsLBA:]); got != start {
		i.fault("boot sector", "its boot code loads LBA %d, and %s begins at %d", got, i.bios, start)
	}
	if boot[0] != 0xeb {
		i.fault("boot sector", "its boot code begins with %#02x, not with a jump", boot[0])
	}
}

// checkCore checks the list of blocks that core.img loads itself by.
func (i *inspection) checkCore(core []byte) {
	le := binary.LittleEndian
	first, sectors, segment := le.Uint64(core[coreBlockList:]), int64(le.Uint16(core[coreBlockList+8:])), le.Uint16(core[coreBlockList+10:])
	where := i.bios.String()
	switch {
	case allZero(core):
		i.fault(where, "it is empty, and the boot sector loads GRUB's core image from it")
		return
	case first != uint64(i.bios.Start/biosSector)+1:
		i.fault(where, "GRUB's core image loads its rest from LBA %d, which is not where it is", first)
		return
	case sectors == 0 || (sectors+1)*biosSector > i.bios.Size:
		i.fault(where, "GRUB's core image claims %d sectors, and the partition has %d", sectors+1, i.bios.Size/biosSector)
		return
	case segment != coreSegment:
		i.fault(where, "GRUB's core image is loaded to segment %#x, not %#x", segment, coreSegment)
	}
	i.say("GRUB's core image of %d bytes is where the boot sector looks for it", (sectors+1)*biosSector)
}

// biosGRUB reports whether GRUB starts a disk without an EFI system partition.
func (i *inspection) biosGRUB() bool {
	return i.biosOnly() && (i.grub || i.isRegular(grubConfig))
}

// checkBootConfig checks GRUB's configuration where no EFI system partition has it.
func (i *inspection) checkBootConfig(context.Context) error {
	switch {
	case i.esp != nil:
		i.notApplicable("the EFI system partition has it")
		return nil
	case !i.biosGRUB():
		i.notApplicable("no GRUB is there to read it")
		return nil
	}
	name := grubConfig
	if !i.isRegular(name) && i.isRegular(peersConfig) {
		name = peersConfig
	}
	text, err := i.tree.read(name)
	if err != nil {
		i.fault("/"+grubConfig, "the boot sector starts GRUB, which has no configuration: %v", err)
		return nil
	}
	i.judgeGRUBConfig("/"+name, string(text))
	i.say("it looks for the boot entries on %s", strings.Join(i.entriesOn(), " "))
	return nil
}
