package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"installer/disk/fat"
)

// FAT is a FAT32 file system being made on a partition, written without the kernel, which need not
// have the driver. Nothing of it is valid until [FAT.Close].
type FAT struct {
	*fat.Writer
	disk   *Disk
	part   Partition
	closed bool
}

// section is the range of a partition on its disk.
type section struct {
	disk *Disk
	part Partition
}

func (s section) ReadAt(p []byte, off int64) (int, error) { return s.disk.ReadAt(p, s.part.Start+off) }
func (s section) WriteAt(p []byte, off int64) (int, error) {
	return s.disk.WriteAt(p, s.part.Start+off)
}

// FAT makes a FAT32 file system on a partition, with an upper-case volume label of at most 11
// characters. The volume's serial number is the start of the PARTUUID, so that it needs no clock
// and repeats when the identifiers do.
func (d *Disk) FAT(p Partition, label string) (*FAT, error) {
	if err := d.within(p.Start, p.Size); err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q of %s: %w", p.Name, d.Path(), err)
	}
	id, err := uuid.Parse(p.UUID)
	if err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q of %s: partition identifier %q: %w", p.Name, d.Path(), p.UUID, err)
	}
	w, err := fat.Create(section{d, p}, fat.Options{
		Size: p.Size, Sector: d.sector, Hidden: p.Start / int64(d.sector), Serial: binary.BigEndian.Uint32(id[:4]), Label: label})
	if err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q of %s: %w", p.Name, d.Path(), err)
	}
	return &FAT{Writer: w, disk: d, part: p}, nil
}

// Close completes the file system, flushes the disk, and compares every file on it with the content
// that was handed in. A second Close does nothing.
func (f *FAT) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	if err := f.Finish(); err != nil {
		return fmt.Errorf("writing the FAT file system on %q of %s: %w", f.part.Name, f.disk.Path(), err)
	}
	if err := f.disk.Sync(); err != nil {
		return err
	}
	if err := f.verify(); err != nil {
		return fmt.Errorf("reading back the FAT file system on %q of %s: %w", f.part.Name, f.disk.Path(), err)
	}
	return nil
}

// verify reads the file system from the medium.
func (f *FAT) verify() error {
	if err := dropCache(f.disk.file, f.part.Start, f.part.Size); err != nil {
		return err
	}
	return f.Verify()
}

// Discard gives the file system up; the part of it on the disk is no file system. Close then does
// nothing.
func (f *FAT) Discard() error {
	f.closed = true
	return nil
}

// Withhold keeps the boot sector, by which firmware knows the file system, from the disk until
// [Disk.Reveal], as the last of the ranges so far, and its copy before it.
func (f *FAT) Withhold() error {
	sector := int64(f.disk.sector)
	if err := f.disk.Withhold(f.part.Start+fat.BackupBootSector*sector, sector); err != nil {
		return err
	}
	return f.disk.Withhold(f.part.Start, sector)
}
