package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"golang.org/x/sys/unix"
)

// wipeSpan is the number of bytes that are cleared at either end of the disk and of each new
// partition. The farthest signature from an edge that probing programs accept is LUKS2's second
// header, at 4 MiB.
const wipeSpan = 8 * mib

// wipeBlock is the number of bytes that are cleared around a signature elsewhere.
const wipeBlock = 4096

// WriteTable replaces the content of the disk by a layout. It removes the kernel's old partitions,
// wipes old signatures (a raw file is emptied whole), writes the protective MBR and both copies of
// the GPT, flushes, and reads everything back from the medium. Its error is an [*InUseError],
// before the first write, where a partition is held.
func (d *Disk) WriteTable(l Layout) error {
	if err := l.fits(d); err != nil {
		return err
	}
	if err := d.kernel.drop(func(node) bool { return true }); err != nil {
		return err
	}
	if err := d.wipe(l); err != nil {
		return fmt.Errorf("wiping old signatures from %s: %w", d.Path(), err)
	}
	if err := l.gpt().Write(d.file, d.size); err != nil {
		return fmt.Errorf("writing the partition table to %s: %w", d.Path(), err)
	}
	if _, err := d.file.WriteAt(protectiveMBR(d.size/int64(d.sector)), 0); err != nil {
		return fmt.Errorf("writing the protective MBR to %s: %w", d.Path(), err)
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.Verify(l)
}

// fits checks that the layout was made for a disk and that its partitions are in order.
func (l Layout) fits(d *Disk) error {
	if l.DiskSize != d.size || l.SectorSize != d.sector {
		return fmt.Errorf("the layout is for a disk of %d bytes in sectors of %d; %s has %d in sectors of %d",
			l.DiskSize, l.SectorSize, d.Path(), d.size, d.sector)
	}
	if len(l.Partitions) == 0 {
		return errors.New("the layout has no partitions")
	}
	after := int64(alignment)
	for _, p := range l.Partitions {
		if p.Start < after || p.Size <= 0 || p.Start%alignment != 0 || p.Size%int64(d.sector) != 0 {
			return fmt.Errorf("partition %d (%s) at %d+%d overlaps or is not aligned", p.Number, p.Name, p.Start, p.Size)
		}
		after = p.End()
	}
	if after > d.size-backupSize(d.sector) {
		return fmt.Errorf("the partitions end at %d, behind the usable part of %s", after, d.Path())
	}
	return nil
}

// gpt converts a layout for the GPT writer. The writer makes no protective MBR here: it truncates
// the disk's size to 32 bits where the specification wants it capped.
func (l Layout) gpt() *gpt.Table {
	t := &gpt.Table{LogicalSectorSize: l.SectorSize, PhysicalSectorSize: l.SectorSize, GUID: l.UUID}
	sector := uint64(l.SectorSize)
	for _, p := range l.Partitions {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: p.Number, Name: p.Name, Type: gpt.Type(strings.ToUpper(p.Type)), GUID: p.UUID,
			Start: uint64(p.Start) / sector, End: uint64(p.End())/sector - 1,
		})
	}
	return t
}

// protectiveMBR is LBA 0 of a GPT disk (UEFI 2.10 section 5.2.3): one partition of type 0xEE over
// the whole disk, its size capped at 32 bits; no boot code.
func protectiveMBR(sectors int64) []byte {
	b := make([]byte, 512)
	e := b[446:462]
	copy(e, []byte{0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Verify reads both copies of the table and the protective MBR from the medium and compares them
// with a layout. The boot code in the MBR is not compared.
func (d *Disk) Verify(l Layout) error {
	if err := dropCache(d.file, 0, 0); err != nil {
		return err
	}
	lastLBA := d.size/int64(d.sector) - 1
	for _, c := range []struct {
		name       string
		own, other int64
	}{{"primary", 1, lastLBA}, {"backup", lastLBA, 1}} {
		t, err := ReadGPT(d.file, d.sector, c.own)
		if err == nil {
			err = t.matches(l)
		}
		if err == nil && t.Other != uint64(c.other) {
			err = fmt.Errorf("it looks for the other copy at LBA %d, not %d", t.Other, c.other)
		}
		if err != nil {
			return fmt.Errorf("reading back the %s partition table of %s: %w", c.name, d.Path(), err)
		}
	}
	mbr := make([]byte, 512)
	if _, err := d.file.ReadAt(mbr, 0); err != nil {
		return fmt.Errorf("reading back the protective MBR of %s: %w", d.Path(), err)
	}
	if !bytes.Equal(mbr[446:], protectiveMBR(lastLBA + 1)[446:]) {
		return fmt.Errorf("reading back the protective MBR of %s: it differs from the one that was written", d.Path())
	}
	return nil
}

// dropCache drops a range of a file from the page cache, so that the medium answers the next read;
// n of 0 means up to the end.
func dropCache(f *os.File, off, n int64) error {
	if err := unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("dropping the cache of %s: %w", f.Name(), err)
	}
	return nil
}

// wipe clears the places where probing programs look for signatures.
func (d *Disk) wipe(l Layout) error {
	if !d.IsBlock() {
		err := unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, d.size)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	ranges := [][2]int64{{0, d.size}}
	for _, p := range l.Partitions {
		ranges = append(ranges, [2]int64{p.Start, p.Size})
	}
	for _, r := range ranges {
		span := min(wipeSpan, r[1])
		if err := zero(d.file, r[0], span); err != nil {
			return err
		}
		if err := zero(d.file, r[0]+r[1]-span, span); err != nil {
			return err
		}
	}
	for _, s := range signatures { // copies of superblocks farther in
		if s.at < wipeSpan || s.at+wipeBlock > d.size {
			continue
		}
		if err := zero(d.file, roundDown(s.at, wipeBlock), wipeBlock); err != nil {
			return err
		}
	}
	return d.Sync()
}

// zero writes zeros over a range.
func zero(w io.WriterAt, off, n int64) error {
	blank := make([]byte, mib)
	for n > 0 {
		part := min(n, int64(len(blank)))
		if _, err := w.WriteAt(blank[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}
