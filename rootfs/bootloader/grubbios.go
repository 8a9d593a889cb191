package bootloader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
)

// The layout of GRUB's two boot images, as its own installer patches them: boot.img goes to the
// first sector of the disk and loads one sector, diskboot.img, which is the first of core.img and
// loads the rest by a list of blocks.
const (
	biosSector     = 512
	bootSectorLBA  = 0x5c  // u64: where the first sector of core.img is
	bootDrive      = 0x64  // u8: BIOS drive, 0xff is the one that was started from
	bootDriveCheck = 0x66  // two bytes: a jump around a work-around for old BIOSes
	bootCodeEnd    = 0x1b8 // the rest belongs to the partition table: disk signature and protective entries
	bootSignature  = 0x1fe // two bytes: 55 aa
	blockList      = 0x1f4 // in core.img's first sector: u64 start, u16 sectors, u16 segment
	loadSegment    = 0x820 // where diskboot.img loads the rest, in units of 16 bytes
	maxCoreSize    = 0x78000
)

// biosCode is the code that BIOS firmware starts, with its place on the disk.
type biosCode struct {
	core   []byte // padded to whole sectors, blocks listed
	coreAt int64  // bytes from the start of the disk
	boot   []byte // one sector, of which the partition table's part is left out when written
}

// makeBIOSCode has the image's GRUB make core.img, and lays both images out for their places on the
// disk.
func makeBIOSCode(ctx context.Context, t Target, p platform) (*biosCode, error) {
	if err := checkBIOSTarget(t); err != nil {
		return nil, err
	}
	core, err := makeGRUBImage(ctx, t, p.grubBIOS, t.biosPrefix())
	if err != nil {
		return nil, err
	}
	diskboot, err := readFile(t.Tree, path.Join(grubDir(p.grubBIOS), "diskboot.img"), maxGRUBFile)
	if err != nil {
		return nil, fmt.Errorf("reading GRUB's first stage: %w", err)
	}
	boot, err := readFile(t.Tree, path.Join(grubDir(p.grubBIOS), "boot.img"), maxGRUBFile)
	if err != nil {
		return nil, fmt.Errorf("reading GRUB's boot sector: %w", err)
	}
	return layOutBIOSCode(core, diskboot, boot, *t.BIOSBoot)
}

func checkBIOSTarget(t Target) error {
	switch {
	case t.Disk == nil || t.BIOSBoot == nil:
		return errors.New("GRUB for BIOS needs a BIOS boot partition, and the disk has none")
	case t.SectorSize != biosSector:
		return &SectorError{Size: t.SectorSize}
	case t.BIOSBoot.Start%biosSector != 0:
		return fmt.Errorf("the BIOS boot partition starts at byte %d, which is no sector boundary", t.BIOSBoot.Start)
	case !t.onESP() && (t.BootDir == nil || t.BootPartition < 1):
		return errors.New("GRUB for BIOS keeps its configuration on the EFI system partition, or else in the directory boot, and needs the number of that partition on the disk")
	}
	return nil
}

// layOutBIOSCode checks the images against each other and patches in where they will stand.
func layOutBIOSCode(core, diskboot, boot []byte, part Range) (*biosCode, error) {
	if err := checkBIOSImages(core, diskboot, boot, part); err != nil {
		return nil, err
	}
	sectors := (len(core) + biosSector - 1) / biosSector
	padded := make([]byte, sectors*biosSector)
	copy(padded, core)
	start := uint64(part.Start / biosSector)
	binary.LittleEndian.PutUint64(padded[blockList:], start+1)
	binary.LittleEndian.PutUint16(padded[blockList+8:], uint16(sectors-1))
	binary.LittleEndian.PutUint16(padded[blockList+10:], loadSegment)

	sector := bytes.Clone(boot)
	binary.LittleEndian.PutUint64(sector[bootSectorLBA:], start)
	sector[bootDrive] = 0xff
	copy(sector[bootDriveCheck:], []byte{0x90, 0x90})
	return &biosCode{core: padded, coreAt: part.Start, boot: sector}, nil
}

func checkBIOSImages(core, diskboot, boot []byte, part Range) error {
	switch {
	case len(boot) != biosSector || !bytes.Equal(boot[bootSignature:], []byte{0x55, 0xaa}):
		return fmt.Errorf("GRUB's boot.img is no boot sector: %d bytes, or not signed 55 aa", len(boot))
	case len(diskboot) != biosSector:
		return fmt.Errorf("GRUB's diskboot.img has %d bytes instead of %d", len(diskboot), biosSector)
	case len(core) < 2*biosSector || !bytes.Equal(core[:blockList], diskboot[:blockList]):
		return fmt.Errorf("what grub-mkimage made (%d bytes) does not begin with GRUB's diskboot.img", len(core))
	case len(core) > maxCoreSize:
		return fmt.Errorf("GRUB's core image has %d bytes, and a BIOS can load %d", len(core), maxCoreSize)
	case int64(len(core)) > part.Size:
		return fmt.Errorf("GRUB's core image has %d bytes, and the BIOS boot partition %d: make it larger", len(core), part.Size)
	}
	return nil
}

// write puts core.img into its partition and the code into the boot sector, around the partition
// table there, and reads both back.
func (b *biosCode) write(disk Disk) error {
	if err := writeCompared(disk, b.core, b.coreAt); err != nil {
		return fmt.Errorf("writing GRUB's core image to the BIOS boot partition: %w", err)
	}
	if err := checkProtective(disk); err != nil {
		return err
	}
	if err := writeCompared(disk, b.boot[:bootCodeEnd], 0); err != nil {
		return fmt.Errorf("writing GRUB's boot code to the first sector: %w", err)
	}
	return nil
}

// checkProtective makes sure that the first sector is signed as a boot sector already, as that of
// every GPT is: the code alone would not be started.
func checkProtective(disk Disk) error {
	var signature [2]byte
	if _, err := disk.ReadAt(signature[:], bootSignature); err != nil {
		return fmt.Errorf("reading the first sector: %w", err)
	}
	if signature != [2]byte{0x55, 0xaa} {
		return errors.New("the disk's first sector is not signed 55 aa: the partition table must be written before the boot code")
	}
	return nil
}

func writeCompared(disk Disk, data []byte, at int64) error {
	if _, err := disk.WriteAt(data, at); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(data), at, err)
	}
	got := make([]byte, len(data))
	if _, err := disk.ReadAt(got, at); err != nil {
		return fmt.Errorf("reading %d bytes at %d back: %w", len(data), at, err)
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("the %d bytes at %d are not what was written", len(data), at)
	}
	return nil
}
