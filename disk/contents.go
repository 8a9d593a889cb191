package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Found is content of a disk that an installation would destroy.
type Found struct {
	Where string // "the disk", or "partition 2 (EFI-SYSTEM)"
	What  string // "GPT partition table", "ext4 file system"
	Start int64  // of the disk or partition, in bytes from the start of the disk
	Size  int64  // bytes
}

func (f Found) String() string { return f.Where + ": " + f.What }

// NotEmptyError refuses a disk that has content. Nothing was written.
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

// RequireEmpty fails with [*NotEmptyError] when the disk has content.
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

// Contents looks for a partition table and for the signatures of file systems, volume managers,
// RAID, encryption and swap, on the disk and on each partition of the table that it finds. Where
// there is none, it looks for data of any other kind. It only reads.
func (d *Disk) Contents() ([]Found, error) {
	found, err := d.known()
	if err != nil || len(found) > 0 {
		return found, err
	}
	var unknown string
	if d.IsBlock() {
		unknown, err = dataAtEdges(d.file, d.size)
	} else {
		unknown, err = dataInFile(d.file, d.size)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for data on %s: %w", d.Path(), err)
	}
	if unknown != "" {
		found = []Found{{"the disk", unknown, 0, d.size}}
	}
	return found, nil
}

// known is [Disk.Contents] for formats that have a name.
func (d *Disk) known() ([]Found, error) {
	found, err := probe(d.file, "the disk", 0, d.size)
	if err != nil {
		return nil, err
	}
	parts, tables, err := oldTable(d.file, d.size, d.sector, len(found) > 0)
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
		on, err := probe(d.file, where, p.Start, p.Size)
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

// edge is how much of a block device must be zero at either end for it to count as empty, in bytes.
// A device that was in use has data there, if only the noise of an encrypted volume without a
// header.
const edge = 1 * mib

// dataAtEdges looks for bytes other than zero at either end of a block device.
func dataAtEdges(r io.ReaderAt, size int64) (string, error) {
	span := min(edge, size)
	for _, c := range []struct {
		name string
		off  int64
	}{{"first", 0}, {"last", size - span}} {
		at, err := firstData(r, c.off, span)
		if err != nil {
			return "", err
		}
		if at >= 0 {
			return fmt.Sprintf("data of an unknown format in its %s MiB (at byte %d)", c.name, at), nil
		}
	}
	return "", nil
}

// zerosRead is how much of a file's data is read in search of a byte other than zero.
const zerosRead = 4 << 30

// dataInFile looks for data in the extents of a file. Zeros that were written out count as none, up
// to a limit; a file system that knows no holes shows the whole file as one extent.
func dataInFile(f *os.File, size int64) (string, error) {
	var read int64
	for off := int64(0); off < size; {
		start, end, err := extent(f, off, size)
		if errors.Is(err, unix.ENXIO) {
			return "", nil // there is none behind off
		}
		if err != nil {
			return "", err
		}
		part := min(end-start, zerosRead-read)
		at, err := firstData(f, start, part)
		switch {
		case err != nil:
			return "", err
		case at >= 0:
			return fmt.Sprintf("data of an unknown format (at byte %d)", at), nil
		case part < end-start:
			return fmt.Sprintf("data extents of more than %d GiB (zeros as far as they were read)", zerosRead>>30), nil
		}
		read, off = read+part, end
	}
	return "", nil
}

// extent returns the next range of a file that has data, or the rest of the file where the file
// system knows no holes. Its error is ENXIO where there is no such range.
func extent(f *os.File, off, size int64) (start, end int64, err error) {
	fd := int(f.Fd())
	if start, err = unix.Seek(fd, off, unix.SEEK_DATA); err == nil {
		end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return off, size, nil
	}
	return start, end, err
}

// firstData returns the offset of the first byte of a range that is not zero; -1 where there is
// none.
func firstData(r io.ReaderAt, off, n int64) (int64, error) {
	buf := make([]byte, mib)
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		if got, err := r.ReadAt(part, off); err != nil && !(errors.Is(err, io.EOF) && got == len(part)) {
			return -1, err
		}
		if !allZero(part) {
			return off + int64(bytes.IndexFunc(part, func(r rune) bool { return r != 0 })), nil
		}
		off, n = off+int64(len(part)), n-int64(len(part))
	}
	return -1, nil
}

// probe looks for signatures on a range.
func probe(f *os.File, where string, start, size int64) ([]Found, error) {
	names, err := signaturesOn(io.NewSectionReader(f, start, size), size)
	if err != nil {
		return nil, fmt.Errorf("looking at %s of %s: %w", where, f.Name(), err)
	}
	var found []Found
	for _, n := range names {
		found = append(found, Found{where, n, start, size})
	}
	return found, nil
}

// oldTable reads the partition table of the disk: a GPT by either copy, in sectors of either size
// (an image may have been written with the other size), or an MBR. The boot sector of a disk with a
// file system only looks like an MBR.
func oldTable(f *os.File, size int64, sector int, hasFilesystem bool) (parts []Partition, tables []string, err error) {
	for _, written := range []int{512, 4096} {
		for _, lba := range []int64{1, size/int64(written) - 1} {
			if lba < 1 {
				continue
			}
			t, err := ReadGPT(f, written, lba)
			if errors.Is(err, ErrNoGPT) || errors.Is(err, io.EOF) {
				continue
			}
			if err != nil {
				tables = append(tables, "damaged GPT partition table")
				continue
			}
			return clip(t.Partitions, size), []string{"GPT partition table"}, nil
		}
	}
	if hasFilesystem || len(tables) > 0 {
		return nil, tables, nil
	}
	mbr := make([]byte, 512)
	if size < int64(len(mbr)) {
		return nil, nil, nil
	}
	if _, err := f.ReadAt(mbr, 0); err != nil {
		return nil, nil, fmt.Errorf("reading the boot sector of %s: %w", f.Name(), err)
	}
	if parts, ok := parseMBR(mbr, int64(sector)); ok {
		return clip(parts, size), []string{"MBR partition table"}, nil
	}
	return nil, nil, nil
}

// parseMBR reads the four primary entries of an MBR. All entries must be plausible: other boot
// sectors end in the same two bytes.
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

// clip drops partitions that do not lie on the disk: a damaged table must not cause reads
// elsewhere.
func clip(parts []Partition, size int64) []Partition {
	var inside []Partition
	for _, p := range parts {
		if p.Size > 0 && p.Start >= 0 && p.Start <= size-p.Size {
			inside = append(inside, p)
		}
	}
	return inside
}
