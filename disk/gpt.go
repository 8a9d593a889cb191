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

// errNoGPT says that a sector holds no GPT header at all, as opposed to a damaged one.
var errNoGPT = errors.New("no GPT header")

// Limits of what a table read from a disk may claim, so that a damaged one cannot exhaust memory.
const (
	gptHeaderSize = 92 // UEFI 2.10 table 5.5
	maxGPTBytes   = 1 << 20
)

// gptTable is one of the two copies of a table, read by code that had no part in writing it.
type gptTable struct {
	own, other  uint64 // LBA of this header and of the other one
	first, last uint64 // usable LBAs, inclusive
	guid        string
	entriesCRC  uint32
	parts       []Partition
}

// readGPT reads the header at an LBA and its entries and checks both checksums (UEFI 2.10 section 5.3.2).
func readGPT(r io.ReaderAt, sector int, lba int64) (gptTable, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, lba*int64(sector)); err != nil {
		return gptTable{}, fmt.Errorf("reading the GPT header at LBA %d: %w", lba, err)
	}
	if !bytes.Equal(b[:8], []byte("EFI PART")) {
		return gptTable{}, errNoGPT
	}
	if err := checkHeader(b); err != nil {
		return gptTable{}, fmt.Errorf("GPT header at LBA %d: %w", lba, err)
	}
	le := binary.LittleEndian
	t := gptTable{
		own: le.Uint64(b[24:]), other: le.Uint64(b[32:]),
		first: le.Uint64(b[40:]), last: le.Uint64(b[48:]),
		guid: guidString(b[56:72]), entriesCRC: le.Uint32(b[88:]),
	}
	if t.own != uint64(lba) {
		return gptTable{}, fmt.Errorf("GPT header at LBA %d says that it is at %d", lba, t.own)
	}
	entries := make([]byte, uint64(le.Uint32(b[80:]))*uint64(le.Uint32(b[84:])))
	if _, err := r.ReadAt(entries, int64(le.Uint64(b[72:]))*int64(sector)); err != nil {
		return gptTable{}, fmt.Errorf("reading the GPT entries of the header at LBA %d: %w", lba, err)
	}
	if got := crc32.ChecksumIEEE(entries); got != t.entriesCRC {
		return gptTable{}, fmt.Errorf("GPT entries of the header at LBA %d: checksum %08x, the header says %08x", lba, got, t.entriesCRC)
	}
	t.parts = parseEntries(entries, int(le.Uint32(b[84:])), int64(sector))
	return t, nil
}

// checkHeader checks what makes a header safe to follow: sizes and its own checksum.
func checkHeader(b []byte) error {
	le := binary.LittleEndian
	size, count, each := le.Uint32(b[12:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if size < gptHeaderSize || int(size) > len(b) {
		return fmt.Errorf("header size %d is impossible", size)
	}
	if each < gptEntrySize || uint64(count)*uint64(each) > maxGPTBytes {
		return fmt.Errorf("%d entries of %d bytes are impossible", count, each)
	}
	header := bytes.Clone(b[:size])
	clear(header[16:20])
	if got, want := crc32.ChecksumIEEE(header), le.Uint32(b[16:]); got != want {
		return fmt.Errorf("checksum %08x, the header says %08x", got, want)
	}
	return nil
}

// parseEntries decodes the used entries (UEFI 2.10 table 5.6).
func parseEntries(b []byte, each int, sector int64) []Partition {
	var parts []Partition
	le := binary.LittleEndian
	for i := 0; (i+1)*each <= len(b); i++ {
		e := b[i*each : (i+1)*each]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := int64(le.Uint64(e[32:])), int64(le.Uint64(e[40:]))
		parts = append(parts, Partition{
			Number: i + 1, Type: guidString(e[:16]), UUID: guidString(e[16:32]),
			Start: first * sector, Size: (last - first + 1) * sector, Name: utf16String(e[56:128]),
		})
	}
	return parts
}

// guidString decodes a GUID, whose first three fields are little-endian on disk (UEFI 2.10 appendix A).
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

// matches compares what was read with what was to be written.
func (t gptTable) matches(l Layout) error {
	if t.guid != l.UUID {
		return fmt.Errorf("disk identifier is %s, not %s", t.guid, l.UUID)
	}
	if len(t.parts) != len(l.Partitions) {
		return fmt.Errorf("%d partitions, not %d", len(t.parts), len(l.Partitions))
	}
	for i, want := range l.Partitions {
		if t.parts[i] != want {
			return fmt.Errorf("partition %d is %+v, not %+v", want.Number, t.parts[i], want)
		}
		if want.Start < int64(t.first)*int64(l.SectorSize) || want.End() > int64(t.last+1)*int64(l.SectorSize) {
			return fmt.Errorf("partition %d lies outside the usable sectors %d to %d", want.Number, t.first, t.last)
		}
	}
	return nil
}
