package fsinfo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// Type is a type of file system, by the name that mount(8) has for it.
type Type string

// The types that the package reads.
const (
	XFS   Type = "xfs"
	Ext4  Type = "ext4"
	Btrfs Type = "btrfs"
	VFAT  Type = "vfat"
)

var (
	// ErrUnknown means that a device holds none of the file systems that the package reads.
	ErrUnknown = errors.New("neither xfs nor ext4 nor btrfs nor FAT")
	// ErrNoRoot means that a device holds none of the file systems that a root can have.
	ErrNoRoot = errors.New("neither xfs nor ext4 nor btrfs")
)

// Superblock holds the facts of a file system that its superblock states.
type Superblock struct {
	Type      Type
	UUID      string // lower case; of a FAT its volume ID, as in "1A2B-3C4D"
	Label     string
	BlockSize int64 // bytes; of a FAT the cluster
	Size      int64 // bytes, all devices of a btrfs together
	Features  Features
}

// Features are the feature bits of a superblock, numbered as in the kernel's headers; zero for a
// FAT.
type Features struct {
	Compatible   uint64
	ReadOnly     uint64 // compatible for reading (RO_COMPAT)
	Incompatible uint64
}

// Where the superblocks are, in bytes: XFS and FAT at 0, ext4 at 1 KiB (Linux,
// Documentation/filesystems/ext4), btrfs at 64 KiB (btrfs on-disk format).
const (
	Ext4Offset  = 1024
	BtrfsOffset = 64 << 10
	largest     = 4096 // bytes of a superblock
)

// Magic numbers of the superblocks.
const (
	xfsMagic   = "XFSB"
	ext4Magic  = 0xef53
	btrfsMagic = "_BHRfS_M"
)

// Read identifies the file system on a device. Its error is [ErrUnknown] where there is none.
func Read(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, BtrfsOffset+largest)
	n, err := r.ReadAt(b, 0)
	if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
		return Superblock{}, fmt.Errorf("reading the superblock: %w", err)
	}
	switch {
	case string(b[:4]) == xfsMagic:
		return readXFS(b), nil
	case binary.LittleEndian.Uint16(b[Ext4Offset+0x38:]) == ext4Magic:
		return readExt4(b[Ext4Offset:]), nil
	case string(b[BtrfsOffset+0x40:][:8]) == btrfsMagic:
		return readBtrfs(b[BtrfsOffset:]), nil
	case isFAT(b):
		return readFAT(b), nil
	}
	return Superblock{}, ErrUnknown
}

// ReadRoot is [Read] for the file systems that a root can have; its error is [ErrNoRoot] for all
// others.
func ReadRoot(r io.ReaderAt) (Superblock, error) {
	s, err := Read(r)
	if errors.Is(err, ErrUnknown) || err == nil && s.Type == VFAT {
		return Superblock{}, ErrNoRoot
	}
	return s, err
}

// readXFS decodes "XFS Algorithms & Data Structures", Superblocks.
func readXFS(b []byte) Superblock {
	const (
		version   = 0xf   // mask of the version number
		fileType4 = 0x200 // of versions before 5: XFS_SB_VERSION2_FTYPE in sb_features2
	)
	be := binary.BigEndian
	block := int64(be.Uint32(b[4:]))
	s := Superblock{Type: XFS, UUID: plainUUID(b[32:]), Label: text(b[108:120]),
		BlockSize: block, Size: scaled(be.Uint64(b[8:]), block)}
	if be.Uint16(b[100:])&version == 5 {
		s.Features = Features{uint64(be.Uint32(b[208:])), uint64(be.Uint32(b[212:])), uint64(be.Uint32(b[216:]))}
	} else if be.Uint32(b[200:])&fileType4 != 0 {
		s.Features.Incompatible = xfsFileType
	}
	return s
}

// readExt4 decodes "Super Block" in the kernel's documentation of ext4.
func readExt4(b []byte) Superblock {
	const has64Bit = 0x80
	le := binary.LittleEndian
	s := Superblock{Type: Ext4, UUID: plainUUID(b[0x68:]), Label: text(b[0x78:0x88]),
		Features: Features{uint64(le.Uint32(b[0x5c:])), uint64(le.Uint32(b[0x64:])), uint64(le.Uint32(b[0x60:]))}}
	if shift := le.Uint32(b[0x18:]); shift <= 6 {
		s.BlockSize = 1024 << shift
	}
	blocks := uint64(le.Uint32(b[4:]))
	if s.Features.Incompatible&has64Bit != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	s.Size = scaled(blocks, s.BlockSize)
	return s
}

// readBtrfs decodes "On-disk format" of the btrfs documentation.
func readBtrfs(b []byte) Superblock {
	le := binary.LittleEndian
	return Superblock{Type: Btrfs, UUID: plainUUID(b[0x20:]), Label: text(b[0x12b : 0x12b+256]),
		BlockSize: int64(le.Uint32(b[0x90:])), Size: scaled(le.Uint64(b[0x70:]), 1),
		Features: Features{le.Uint64(b[0xac:]), le.Uint64(b[0xb4:]), le.Uint64(b[0xbc:])}}
}

// isFAT reports whether a boot sector is that of a FAT as the mkfs.fat of any system writes it.
func isFAT(b []byte) bool {
	return b[510] == 0x55 && b[511] == 0xaa && (string(b[82:90]) == "FAT32   " || string(b[54:59]) == "FAT12" || string(b[54:59]) == "FAT16")
}

// readFAT decodes the boot sector (Microsoft FAT specification, 2004, "Boot Sector and BPB").
func readFAT(b []byte) Superblock {
	le := binary.LittleEndian
	ext := b[36:] // the extended part, which FAT32 has 28 bytes later
	if string(b[82:90]) == "FAT32   " {
		ext = b[64:]
	}
	sectors := uint64(le.Uint16(b[19:]))
	if sectors == 0 {
		sectors = uint64(le.Uint32(b[32:]))
	}
	sector := int64(le.Uint16(b[11:]))
	id := le.Uint32(ext[3:])
	return Superblock{Type: VFAT, UUID: fmt.Sprintf("%04X-%04X", id>>16, id&0xffff),
		Label:     string(bytes.TrimRight(ext[7:18], " \x00")),
		BlockSize: sector * int64(b[13]), Size: scaled(sectors, sector)}
}

// scaled multiplies, and returns 0 for a size that no device has.
func scaled(blocks uint64, size int64) int64 {
	if size <= 0 || blocks > uint64(1<<62/size) {
		return 0
	}
	return int64(blocks) * size
}

// plainUUID reads a UUID stored in the order in which it is written.
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

// Incompatible features that GRUB 2.06 reads or may ignore. Distributions have added to them:
// Debian 12's also reads nrext64 and metadata_csum_seed, but an image may bring another. The
// numbers are those of the format headers in Linux.
const (
	xfsReadable  = xfsFileType | 0x2 | 0x4 | 0x8 | 0x10                              // spinodes, meta_uuid, bigtime, needsrepair
	ext4Readable = ext4FileType | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x10000 // recover, meta_bg, extents, 64bit, mmp, flex_bg, encrypt
)

// Unreadable returns the incompatible features that GRUB 2.06 does not read.
func (s Superblock) Unreadable() uint64 {
	switch s.Type {
	case XFS:
		return s.Features.Incompatible &^ xfsReadable
	case Ext4:
		return s.Features.Incompatible &^ ext4Readable
	}
	return 0
}

// Verity reports whether files of the file system can have fs-verity. On an ext4 it is a feature,
// and needs blocks of 4 KiB on kernels before 6.3. No XFS has it.
func (s Superblock) Verity() bool {
	const ext4Verity, blockSize = 0x8000, 4096
	switch s.Type {
	case Ext4:
		return s.Features.ReadOnly&ext4Verity != 0 && s.BlockSize == blockSize
	case Btrfs:
		return true
	}
	return false
}

// Features of directory entries that have the types of files.
const (
	xfsFileType  = 0x1 // XFS_SB_FEAT_INCOMPAT_FTYPE
	ext4FileType = 0x2 // EXT4_FEATURE_INCOMPAT_FILETYPE
)

// EntryTypes reports whether directory entries show the types of files, as overlays demand of their
// layers.
func (s Superblock) EntryTypes() bool {
	switch s.Type {
	case XFS:
		return s.Features.Incompatible&xfsFileType != 0
	case Ext4:
		return s.Features.Incompatible&ext4FileType != 0
	}
	return s.Type == Btrfs
}
