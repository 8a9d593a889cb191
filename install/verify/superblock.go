package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"installer/disk"
	"installer/finalize"
)

// readSuperblock identifies the root file system; a root that has none is left to checkSuperblock to report.
func (i *inspection) readSuperblock() error {
	r := io.NewSectionReader(i.disk, i.rootfs.Start, i.rootfs.Size)
	sb, err := disk.ReadSuperblock(r)
	if err != nil {
		return err
	}
	i.super = sb
	i.report.Disk.Filesystem, i.report.Disk.RootUUID = string(sb.Filesystem), sb.UUID
	return nil
}

// checkSuperblock checks that the root's super block is whole and that its log is empty.
func (i *inspection) checkSuperblock(context.Context) error {
	if err := i.readSuperblock(); err != nil {
		i.fault(i.rootfs.String(), "its super block: %v", err)
		return nil
	}
	i.checkFilesystem(*i.rootfs, i.super)
	return nil
}

// checkBootSuperblock checks the file system of a separate /boot as that of the root is checked.
func (i *inspection) checkBootSuperblock(context.Context) error {
	if i.boot == nil {
		i.notApplicable("/boot is on the root file system")
		return nil
	}
	i.checkFilesystem(*i.boot, i.bootSuper)
	return nil
}

// checkFilesystem checks that a super block is whole and that the log is empty.
func (i *inspection) checkFilesystem(p Partition, super disk.Superblock) {
	r := io.NewSectionReader(i.disk, p.Start, p.Size)
	for _, problem := range superblockProblems(super.Filesystem, r, p.Size) {
		i.fault(p.String(), "%s", problem)
	}
	clean, err := finalize.CheckClean(string(super.Filesystem), r)
	if err != nil {
		i.faultWith("mount it once for writing, which replays the log, and unmount it", p.String(), "%v", err)
		return
	}
	i.say("%s, UUID %s: %s", super.Filesystem, super.UUID, clean)
}

// superblockProblems compares the super block with its own checksum and its copies, and with the partition's size.
func superblockProblems(fs disk.Filesystem, r io.ReaderAt, size int64) []string {
	switch fs {
	case disk.XFS:
		return xfsProblems(r, size)
	case disk.Ext4:
		return ext4Problems(r, size)
	case disk.Btrfs:
		return btrfsProblems(r, size)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcProblem compares a CRC-32C that stands at an offset of b, little-endian, with that of b without it.
func crcProblem(what string, b []byte, at int) []string {
	want := binary.LittleEndian.Uint32(b[at:])
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	if sum != want {
		return []string{fmt.Sprintf("%s has checksum %08x and says %08x", what, sum, want)}
	}
	return nil
}

func tooLarge(blocks uint64, blockSize, size int64) []string {
	if blockSize > 0 && blocks > uint64(size/blockSize) {
		return []string{fmt.Sprintf("the super block claims %d blocks of %d bytes, and the partition has %d bytes", blocks, blockSize, size)}
	}
	return nil
}

// xfsProblems checks the super block of each allocation group ("XFS Algorithms & Data Structures", Superblocks: sb_crc
// is at 224, over a sector).
func xfsProblems(r io.ReaderAt, size int64) []string {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return []string{fmt.Sprintf("the super block cannot be read: %v", err)}
	}
	be := binary.BigEndian
	blockSize, groupBlocks, groups := int64(be.Uint32(b[4:])), int64(be.Uint32(b[84:])), int64(be.Uint32(b[88:]))
	sector, version := int64(be.Uint16(b[102:])), be.Uint16(b[100:])&0xf
	if version != 5 {
		return []string{fmt.Sprintf("the super block has version %d, not 5, which has checksums", version)}
	}
	if sector < 512 || sector > 32<<10 || blockSize < 512 || groupBlocks == 0 || groups == 0 || groups*groupBlocks > size/blockSize+groupBlocks {
		return []string{"the super block claims an impossible geometry"}
	}
	problems := tooLarge(be.Uint64(b[8:]), blockSize, size)
	first := make([]byte, sector)
	for group := range groups {
		b := make([]byte, sector)
		name := "the super block"
		if group > 0 {
			name = fmt.Sprintf("the super block of allocation group %d", group)
		}
		if _, err := r.ReadAt(b, group*groupBlocks*blockSize); err != nil {
			problems = append(problems, fmt.Sprintf("%s cannot be read: %v", name, err))
			continue
		}
		if group == 0 {
			copy(first, b)
		} else if string(b[:4]) != "XFSB" || string(b[32:48]) != string(first[32:48]) {
			problems = append(problems, name+" is not one of this file system")
			continue
		}
		problems = append(problems, crcProblem(name, b, 224)...)
	}
	return problems
}

// ext4Problems checks the super block at 1024 (Linux, Documentation/filesystems/ext4, Super Block: s_checksum is at
// 0x3fc, over what precedes it, with no final inversion).
func ext4Problems(r io.ReaderAt, size int64) []string {
	const metadataChecksums = 0x400 // RO_COMPAT_METADATA_CSUM
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, 1024); err != nil {
		return []string{fmt.Sprintf("the super block cannot be read: %v", err)}
	}
	le := binary.LittleEndian
	blocks := uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x150:]))<<32
	var problems []string
	if shift := le.Uint32(b[0x18:]); shift <= 6 {
		problems = tooLarge(blocks, 1024<<shift, size)
	}
	if le.Uint16(b[0x3a:])&2 != 0 {
		problems = append(problems, "the kernel has marked it as having errors")
	}
	if le.Uint32(b[0x64:])&metadataChecksums == 0 {
		return problems
	}
	if got, want := ^crc32.Checksum(b[:0x3fc], castagnoli), le.Uint32(b[0x3fc:]); got != want {
		problems = append(problems, fmt.Sprintf("the super block has checksum %08x and says %08x", got, want))
	}
	return problems
}

// btrfsProblems checks the super block at 64 KiB and its copies at 64 MiB and 256 GiB (btrfs documentation, On-disk
// format: the checksum is the first field and covers the rest of the 4096 bytes).
func btrfsProblems(r io.ReaderAt, size int64) []string {
	var problems []string
	var first []byte
	for _, at := range []int64{64 << 10, 64 << 20, 256 << 30} {
		name := fmt.Sprintf("the super block at %d", at)
		if at+4096 > size {
			break
		}
		b := make([]byte, 4096)
		if _, err := r.ReadAt(b, at); err != nil {
			problems = append(problems, fmt.Sprintf("%s cannot be read: %v", name, err))
			continue
		}
		le := binary.LittleEndian
		switch {
		case first == nil:
			first = b
			problems = append(problems, tooLarge(le.Uint64(b[0x70:]), 1, size)...)
		case string(b[0x40:0x48]) != "_BHRfS_M" || string(b[0x20:0x30]) != string(first[0x20:0x30]):
			problems = append(problems, name+" is not one of this file system")
			continue
		}
		if kind := le.Uint16(b[0xc4:]); kind != 0 {
			continue // xxhash, sha256 and blake2 are chosen by nobody who installs; the kernel checks them at the mount
		}
		if got, want := crc32.Checksum(b[32:], castagnoli), le.Uint32(b); got != want {
			problems = append(problems, fmt.Sprintf("%s has checksum %08x and says %08x", name, got, want))
		}
	}
	return problems
}
