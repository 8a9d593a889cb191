package fsinfo

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Damage compares the superblock with its own checksum, with its copies and with the size of the
// partition, and returns a line for each contradiction; nil for types that have no checksum.
func Damage(t Type, r io.ReaderAt, size int64) []string {
	switch t {
	case XFS:
		return xfsDamage(r, size)
	case Ext4:
		return ext4Damage(r, size)
	case Btrfs:
		return btrfsDamage(r, size)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcDamage compares a CRC-32C that stands at an offset of b, little-endian, with that of b without
// it.
func crcDamage(name string, b []byte, at int) []string {
	want := binary.LittleEndian.Uint32(b[at:])
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	if sum != want {
		return []string{fmt.Sprintf("%s has checksum %08x and says %08x", name, sum, want)}
	}
	return nil
}

func tooLarge(blocks uint64, blockSize, size int64) []string {
	if blockSize > 0 && blocks > uint64(size/blockSize) {
		return []string{fmt.Sprintf("the superblock claims %d blocks of %d bytes, and the partition has %d bytes", blocks, blockSize, size)}
	}
	return nil
}

// xfsDamage checks the superblock of each allocation group ("XFS Algorithms & Data Structures",
// Superblocks: sb_crc is at 224, over a sector).
func xfsDamage(r io.ReaderAt, size int64) []string {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return []string{fmt.Sprintf("the superblock cannot be read: %v", err)}
	}
	be := binary.BigEndian
	blockSize, groupBlocks, groups := int64(be.Uint32(b[4:])), int64(be.Uint32(b[84:])), int64(be.Uint32(b[88:]))
	sector, version := int64(be.Uint16(b[102:])), be.Uint16(b[100:])&0xf
	if version != 5 {
		return []string{fmt.Sprintf("the superblock has version %d, not 5, which has checksums", version)}
	}
	if sector < 512 || sector > 32<<10 || blockSize < 512 || groupBlocks == 0 || groups == 0 || groups*groupBlocks > size/blockSize+groupBlocks {
		return []string{"the superblock claims an impossible geometry"}
	}
	damage := tooLarge(be.Uint64(b[8:]), blockSize, size)
	first := make([]byte, sector)
	for group := range groups {
		b := make([]byte, sector)
		name := "the superblock"
		if group > 0 {
			name = fmt.Sprintf("the superblock of allocation group %d", group)
		}
		if _, err := r.ReadAt(b, group*groupBlocks*blockSize); err != nil {
			damage = append(damage, fmt.Sprintf("%s cannot be read: %v", name, err))
			continue
		}
		if group == 0 {
			copy(first, b)
		} else if string(b[:4]) != xfsMagic || string(b[32:48]) != string(first[32:48]) {
			damage = append(damage, name+" is not one of this file system")
			continue
		}
		damage = append(damage, crcDamage(name, b, 224)...)
	}
	return damage
}

// ext4Damage checks the superblock at 1024 (Linux, Documentation/filesystems/ext4, Super Block:
// s_checksum is at 0x3fc, over the bytes before it, with no final inversion).
func ext4Damage(r io.ReaderAt, size int64) []string {
	const metadataChecksums = 0x400 // RO_COMPAT_METADATA_CSUM
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, 1024); err != nil {
		return []string{fmt.Sprintf("the superblock cannot be read: %v", err)}
	}
	le := binary.LittleEndian
	blocks := uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x150:]))<<32
	var damage []string
	if shift := le.Uint32(b[0x18:]); shift <= 6 {
		damage = tooLarge(blocks, 1024<<shift, size)
	}
	if le.Uint32(b[0x64:])&metadataChecksums == 0 {
		return damage
	}
	if got, want := ^crc32.Checksum(b[:0x3fc], castagnoli), le.Uint32(b[0x3fc:]); got != want {
		damage = append(damage, fmt.Sprintf("the superblock has checksum %08x and says %08x", got, want))
	}
	return damage
}

// btrfsDamage checks the superblock at 64 KiB and its copies at 64 MiB and 256 GiB (btrfs
// documentation, On-disk format: the checksum is the first field and covers the rest of the 4096
// bytes).
func btrfsDamage(r io.ReaderAt, size int64) []string {
	var damage []string
	var first []byte
	for _, at := range []int64{64 << 10, 64 << 20, 256 << 30} {
		name := fmt.Sprintf("the superblock at %d", at)
		if at+4096 > size {
			break
		}
		b := make([]byte, 4096)
		if _, err := r.ReadAt(b, at); err != nil {
			damage = append(damage, fmt.Sprintf("%s cannot be read: %v", name, err))
			continue
		}
		le := binary.LittleEndian
		switch {
		case first == nil:
			first = b
			damage = append(damage, tooLarge(le.Uint64(b[0x70:]), 1, size)...)
		case string(b[0x40:0x48]) != btrfsMagic || string(b[0x20:0x30]) != string(first[0x20:0x30]):
			damage = append(damage, name+" is not one of this file system")
			continue
		}
		if kind := le.Uint16(b[0xc4:]); kind != 0 {
			continue // the kernel checks xxhash, sha256 and blake2 at the mount
		}
		if got, want := crc32.Checksum(b[32:], castagnoli), le.Uint32(b); got != want {
			damage = append(damage, fmt.Sprintf("%s has checksum %08x and says %08x", name, got, want))
		}
	}
	return damage
}
