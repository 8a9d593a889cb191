package verify

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

// Sizes of the GUID partition table (UEFI 2.10 section 5.3), in bytes.
const (
	gptHeaderSize = 92
	gptEntrySize  = 128
	maxGPTEntries = 1 << 20 // a damaged header must not exhaust memory
)

// gptSignature begins a header.
const gptSignature = "EFI PART"

// gptCopy is one of the two copies of a partition table, whose own checksums hold.
type gptCopy struct {
	own, other  uint64 // LBA of this header, and where it says the other one is
	first, last uint64 // usable LBAs, inclusive
	guid        string
	entriesAt   uint64 // LBA
	entrySize   int
	entries     []byte
}

// readGPT reads the header at an LBA and its entries, and checks what UEFI 2.10 section 5.3.2 demands of a valid one.
func readGPT(r io.ReaderAt, sector int, lba int64) (gptCopy, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, lba*int64(sector)); err != nil {
		return gptCopy{}, fmt.Errorf("the header at LBA %d cannot be read: %w", lba, err)
	}
	if string(b[:8]) != gptSignature {
		return gptCopy{}, fmt.Errorf("there is no header at LBA %d (signature %q)", lba, b[:8])
	}
	if err := checkGPTHeader(b, lba); err != nil {
		return gptCopy{}, err
	}
	le := binary.LittleEndian
	c := gptCopy{
		own: le.Uint64(b[24:]), other: le.Uint64(b[32:]), first: le.Uint64(b[40:]), last: le.Uint64(b[48:]),
		guid: guidString(b[56:72]), entriesAt: le.Uint64(b[72:]), entrySize: int(le.Uint32(b[84:])),
	}
	c.entries = make([]byte, int(le.Uint32(b[80:]))*c.entrySize)
	if c.entriesAt > 1<<50 {
		return c, fmt.Errorf("the header puts the entries at LBA %d", c.entriesAt)
	}
	if _, err := r.ReadAt(c.entries, int64(c.entriesAt)*int64(sector)); err != nil {
		return c, fmt.Errorf("the entries at LBA %d cannot be read: %w", c.entriesAt, err)
	}
	if got, want := crc32.ChecksumIEEE(c.entries), le.Uint32(b[88:]); got != want {
		return c, fmt.Errorf("the entries have checksum %08x, the header says %08x", got, want)
	}
	return c, nil
}

func checkGPTHeader(b []byte, lba int64) error {
	le := binary.LittleEndian
	size, count, each := le.Uint32(b[12:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if size < gptHeaderSize || int(size) > len(b) {
		return fmt.Errorf("the header claims to have %d bytes", size)
	}
	header := bytes.Clone(b[:size])
	clear(header[16:20])
	if got, want := crc32.ChecksumIEEE(header), le.Uint32(b[16:]); got != want {
		return fmt.Errorf("the header has checksum %08x and says %08x", got, want)
	}
	switch {
	case le.Uint32(b[8:]) != 0x00010000:
		return fmt.Errorf("the header has revision %#x, not 1.0", le.Uint32(b[8:]))
	case le.Uint64(b[24:]) != uint64(lba):
		return fmt.Errorf("the header at LBA %d says that it is at %d", lba, le.Uint64(b[24:]))
	case each < gptEntrySize || uint64(count)*uint64(each) > maxGPTEntries:
		return fmt.Errorf("the header claims %d entries of %d bytes", count, each)
	case !allZero(b[size:]):
		return errors.New("what follows the header in its sector is not zero")
	}
	return nil
}

// partitions decodes the entries that are in use (UEFI 2.10 table 5.6).
func (c gptCopy) partitions(sector int) []Partition {
	var parts []Partition
	le := binary.LittleEndian
	for i := 0; (i+1)*c.entrySize <= len(c.entries); i++ {
		e := c.entries[i*c.entrySize:]
		if allZero(e[:16]) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > 1<<50 || last > 1<<50 { // beyond any disk, and beyond arithmetic on bytes
			first, last = 0, 0
		}
		parts = append(parts, Partition{
			Number: i + 1, Type: guidString(e[:16]), UUID: guidString(e[16:32]), Name: utf16Text(e[56:128]),
			Start: int64(first) * int64(sector), Size: (int64(last) - int64(first) + 1) * int64(sector),
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

func utf16Text(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		unit := binary.LittleEndian.Uint16(b[i:])
		if unit == 0 {
			break
		}
		units = append(units, unit)
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
