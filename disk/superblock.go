package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// Superblock is what identifies a file system on a device.
type Superblock struct {
	Filesystem Filesystem
	UUID       string // lower case
	Label      string
	unreadable uint64 // incompatible features that GRUB 2.06 does not read
}

// Unreadable gives the incompatible features, as the format numbers them, that GRUB 2.06 does not read.
func (s Superblock) Unreadable() uint64 { return s.unreadable }

// ErrNoFilesystem says that a device holds none of the file systems that a root can have.
var ErrNoFilesystem = errors.New("neither xfs nor ext4 nor btrfs")

// Incompatible features that a GRUB 2.06 reads or may ignore. Distributions have added to it: Debian 12's
// also reads nrext64 and metadata_csum_seed, but an image may bring another. The numbers are those of
// the format headers in Linux.
const (
	xfsReadable  = 0x1 | 0x2 | 0x4 | 0x8 | 0x10                             // ftype, spinodes, meta_uuid, bigtime, needsrepair
	ext4Readable = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x10000 // filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, encrypt
)

// Where the superblocks are, in bytes: XFS at 0, ext4 at 1 KiB (Linux, Documentation/filesystems/ext4),
// btrfs at 64 KiB (btrfs on-disk format).
const (
	ext4At  = 1024
	btrfsAt = 0x10000
)

// ReadSuperblock identifies the file system on a device. Where there is none that a root can have it
// fails with [ErrNoFilesystem].
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, btrfsAt+4096)
	if _, err := r.ReadAt(b, 0); err != nil {
		return Superblock{}, fmt.Errorf("reading the superblock: %w", err)
	}
	ext, bt := b[ext4At:], b[btrfsAt:]
	switch {
	case bytes.Equal(b[:4], []byte("XFSB")):
		return Superblock{XFS, plainUUID(b[32:]), text(b[108:120]),
			uint64(binary.BigEndian.Uint32(b[216:])) &^ xfsReadable}, nil
	case binary.LittleEndian.Uint16(ext[0x38:]) == 0xef53:
		return Superblock{Ext4, plainUUID(ext[0x68:]), text(ext[0x78:0x88]),
			uint64(binary.LittleEndian.Uint32(ext[0x60:])) &^ ext4Readable}, nil
	case bytes.Equal(bt[0x40:0x48], []byte("_BHRfS_M")):
		return Superblock{Btrfs, plainUUID(bt[0x20:]), text(bt[0x12b : 0x12b+256]), 0}, nil
	}
	return Superblock{}, ErrNoFilesystem
}

// plainUUID reads a UUID stored in the order it is written.
func plainUUID(b []byte) string {
	var u uuid.UUID
	copy(u[:], b)
	return u.String()
}

// text reads a string padded with zeros.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
