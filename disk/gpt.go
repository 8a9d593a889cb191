package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/google/uuid"
)

// ErrNoGPT means that a sector holds no GPT header at all, as opposed to a damaged one.
var ErrNoGPT = errors.New("no GPT header")

// GPTSignature begins a GPT header (UEFI 2.10 table 5.5).
const GPTSignature = "EFI PART"

// Limits of the numbers in a table that was read from a disk, so that a damaged one cannot exhaust
// memory or overflow arithmetic.
const (
	gptHeaderSize = 92 // UEFI 2.10 table 5.5
	gptRevision   = 0x00010000
	maxGPTBytes   = 1 << 20
	maxLBA        = 1 << 50
)

// GPT is one of the two copies of a partition table whose checksums hold, read by code that had no
// part in writing it.
type GPT struct {
	Own, Other  uint64 // LBA of this header and of the other one
	First, Last uint64 // usable LBAs, inclusive
	UUID        string // of the disk, lower case
	Entries     []byte // all, as they stand on the disk
	Partitions  []Partition

	revision uint32
	tail     bool // bytes other than zero follow the header in its sector
}

// ReadGPT reads the header at an LBA and its entries and checks both checksums (UEFI 2.10 section
// 5.3.2). Where there is no header the error is [ErrNoGPT].
func ReadGPT(r io.ReaderAt, sector int, lba int64) (GPT, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, lba*int64(sector)); err != nil {
		return GPT{}, fmt.Errorf("reading the GPT header at LBA %d: %w", lba, err)
	}
	if string(b[:8]) != GPTSignature {
		return GPT{}, fmt.Errorf("%w at LBA %d (signature %q)", ErrNoGPT, lba, b[:8])
	}
	if err := checkHeader(b); err != nil {
		return GPT{}, fmt.Errorf("the GPT header at LBA %d: %w", lba, err)
	}
	le := binary.LittleEndian
	t := GPT{
		Own: le.Uint64(b[24:]), Other: le.Uint64(b[32:]),
		First: le.Uint64(b[40:]), Last: le.Uint64(b[48:]), UUID: guidString(b[56:72]),
		revision: le.Uint32(b[8:]), tail: !allZero(b[le.Uint32(b[12:]):]),
	}
	if t.Own != uint64(lba) {
		return GPT{}, fmt.Errorf("the GPT header at LBA %d says that it is at %d", lba, t.Own)
	}
	at, each := le.Uint64(b[72:]), int(le.Uint32(b[84:]))
	if at > maxLBA {
		return GPT{}, fmt.Errorf("the GPT header at LBA %d puts its entries at LBA %d", lba, at)
	}
	t.Entries = make([]byte, int(le.Uint32(b[80:]))*each)
	if _, err := r.ReadAt(t.Entries, int64(at)*int64(sector)); err != nil {
		return GPT{}, fmt.Errorf("reading the GPT entries at LBA %d: %w", at, err)
	}
	if got, want := crc32.ChecksumIEEE(t.Entries), le.Uint32(b[88:]); got != want {
		return GPT{}, fmt.Errorf("the GPT entries of the header at LBA %d have checksum %08x, the header says %08x", lba, got, want)
	}
	t.Partitions = parseEntries(t.Entries, each, int64(sector))
	return t, nil
}

// Conforms checks the demands of the specification that readers commonly overlook.
func (t GPT) Conforms() error {
	if t.revision != gptRevision {
		return fmt.Errorf("the GPT header at LBA %d has revision %#x, not 1.0", t.Own, t.revision)
	}
	if t.tail {
		return fmt.Errorf("the sector of the GPT header at LBA %d is not zero behind the header", t.Own)
	}
	return nil
}

// checkHeader checks the sizes in a header and its checksum; with these right it is safe to follow.
func checkHeader(b []byte) error {
	le := binary.LittleEndian
	size, count, each := le.Uint32(b[12:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if size < gptHeaderSize || int(size) > len(b) {
		return fmt.Errorf("it claims to have %d bytes", size)
	}
	if each < gptEntrySize || uint64(count)*uint64(each) > maxGPTBytes {
		return fmt.Errorf("it claims %d entries of %d bytes", count, each)
	}
	header := bytes.Clone(b[:size])
	clear(header[16:20])
	if got, want := crc32.ChecksumIEEE(header), le.Uint32(b[16:]); got != want {
		return fmt.Errorf("its checksum is %08x, and it says %08x", got, want)
	}
	return nil
}

// parseEntries decodes the used entries (UEFI 2.10 table 5.6).
func parseEntries(b []byte, each int, sector int64) []Partition {
	var parts []Partition
	le := binary.LittleEndian
	for i := 0; (i+1)*each <= len(b); i++ {
		e := b[i*each : (i+1)*each]
		if allZero(e[:16]) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > maxLBA || last > maxLBA {
			first, last = 0, 0
		}
		parts = append(parts, Partition{
			Number: i + 1, Type: guidString(e[:16]), UUID: guidString(e[16:32]), Name: utf16String(e[56:128]),
			Start: int64(first) * sector, Size: (int64(last) - int64(first) + 1) * sector,
		})
	}
	return parts
}

// guidString decodes a GUID, whose first three fields are little-endian on disk (UEFI 2.10 appendix
// A).
func guidString(b []byte) string {
	var u uuid.UUID
	copy(u[:], b)
	u[0], u[1], u[2], u[3] = b[3], b[2], b[1], b[0]
	u[4], u[5], u[6], u[7] = b[5], b[4], b[7], b[6]
	return u.String()
}

// utf16String decodes a name that ends at the first zero.
func utf16String(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// matches compares the table that was read with the layout that was to be written.
func (t GPT) matches(l Layout) error {
	if t.UUID != l.UUID {
		return fmt.Errorf("disk identifier is %s, not %s", t.UUID, l.UUID)
	}
	if len(t.Partitions) != len(l.Partitions) {
		return fmt.Errorf("%d partitions, not %d", len(t.Partitions), len(l.Partitions))
	}
	for i, want := range l.Partitions {
		if t.Partitions[i] != want {
			return fmt.Errorf("partition %d is %+v, not %+v", want.Number, t.Partitions[i], want)
		}
		if want.Start < int64(t.First)*int64(l.SectorSize) || want.End() > int64(t.Last+1)*int64(l.SectorSize) {
			return fmt.Errorf("partition %d lies outside the usable sectors %d to %d", want.Number, t.First, t.Last)
		}
	}
	return nil
}
