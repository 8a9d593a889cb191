package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Found is something on a disk that an installation would destroy.
type Found struct {
	Where string // "the disk", or "partition 2 (EFI-SYSTEM)"
	What  string // "GPT partition table", "ext4 file system"
	Start int64  // of the disk or partition, in bytes from the start of the disk
	Size  int64  // bytes
}

func (f Found) String() string { return f.Where + ": " + f.What }

// NotEmptyError refuses a disk that has something on it. Nothing was written.
type NotEmptyError struct {
	Path  string
	Found []Found
}

func (e *NotEmptyError) Error() string {
	parts := make([]string, len(e.Found))
	for i, f := range e.Found {
		parts[i] = f.String()
	}
	return fmt.Sprintf("%s is not empty: %s; to do: say --wipe if all of it may be lost", e.Path, strings.Join(parts, "; "))
}

// RequireEmpty fails with [*NotEmptyError] when the disk has something on it.
func (d *Disk) RequireEmpty() error {
	found, err := d.Contents()
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return &NotEmptyError{d.Path(), found}
	}
	return nil
}

// Contents looks for a partition table and for the signatures of file systems, volume managers, RAID,
// encryption and swap, on the disk and on each partition of the table that it finds. It only reads.
func (d *Disk) Contents() ([]Found, error) {
	found, err := d.probe("the disk", 0, d.size)
	if err != nil {
		return nil, err
	}
	parts, tables, err := d.oldTable(len(found) > 0)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		found = append(found, Found{"the disk", t, 0, d.size})
	}
	for _, p := range parts {
		where := fmt.Sprintf("partition %d", p.Number)
		if p.Name != "" {
			where += " (" + p.Name + ")"
		}
		on, err := d.probe(where, p.Start, p.Size)
		if err != nil {
			return nil, err
		}
		if len(on) == 0 {
			on = []Found{{where, "no known content", p.Start, p.Size}}
		}
		found = append(found, on...)
	}
	return found, nil
}

// probe looks for signatures on a range.
func (d *Disk) probe(where string, start, size int64) ([]Found, error) {
	names, err := signaturesOn(io.NewSectionReader(d.file, start, size), size)
	if err != nil {
		return nil, fmt.Errorf("looking at %s of %s: %w", where, d.Path(), err)
	}
	var found []Found
	for _, n := range names {
		found = append(found, Found{where, n, start, size})
	}
	return found, nil
}

// oldTable reads the partition table that is on the disk: a GPT by either copy, in sectors of either
// size (an image written with the other size is no less somebody's), or an MBR. A disk that bears a
// file system has a boot sector that only looks like an MBR.
func (d *Disk) oldTable(hasFilesystem bool) (parts []Partition, tables []string, err error) {
	for _, sector := range []int{512, 4096} {
		for _, lba := range []int64{1, d.size/int64(sector) - 1} {
			if lba < 1 {
				continue
			}
			t, err := ReadGPT(d.file, sector, lba)
			if errors.Is(err, ErrNoGPT) || errors.Is(err, io.EOF) {
				continue
			}
			if err != nil {
				tables = append(tables, "damaged GPT partition table")
				continue
			}
			return d.clip(t.Partitions), []string{"GPT partition table"}, nil
		}
	}
	if hasFilesystem || len(tables) > 0 {
		return nil, tables, nil
	}
	mbr := make([]byte, 512)
	if d.size < int64(len(mbr)) {
		return nil, nil, nil
	}
	if _, err := d.file.ReadAt(mbr, 0); err != nil {
		return nil, nil, fmt.Errorf("reading the boot sector of %s: %w", d.Path(), err)
	}
	if parts, ok := parseMBR(mbr, int64(d.sector)); ok {
		return d.clip(parts), []string{"MBR partition table"}, nil
	}
	return nil, nil, nil
}

// parseMBR reads the four primary entries of an MBR. All entries must be plausible: other boot sectors
// end in the same two bytes.
func parseMBR(b []byte, sector int64) ([]Partition, bool) {
	if !bytes.Equal(b[510:512], []byte{0x55, 0xaa}) {
		return nil, false
	}
	var parts []Partition
	for i := range 4 {
		e := b[446+16*i : 462+16*i]
		if e[0]&0x7f != 0 {
			return nil, false
		}
		start, size := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if e[4] != 0 && size != 0 {
			parts = append(parts, Partition{Number: i + 1, Start: int64(start) * sector, Size: int64(size) * sector})
		}
	}
	return parts, true
}

// clip drops what does not lie on the disk: a damaged table must not make us read elsewhere.
func (d *Disk) clip(parts []Partition) []Partition {
	var inside []Partition
	for _, p := range parts {
		if p.Size > 0 && d.within(p.Start, p.Size) == nil {
			inside = append(inside, p)
		}
	}
	return inside
}
