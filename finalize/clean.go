package finalize

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrDirty says that the file system's log or journal is not empty: the next
// mount would have to replay it, which a boot loader cannot.
var ErrDirty = errors.New("the file system is not clean")

// CheckClean reads a file system's super block and log and returns, for people,
// what shows that the next mount replays nothing. The error wraps ErrDirty when
// it would. fsType is "xfs", "ext4", "btrfs" or "vfat".
func CheckClean(fsType string, r io.ReaderAt) (string, error) {
	switch fsType {
	case "ext4", "ext3", "ext2":
		return cleanExt4(r)
	case "xfs":
		return cleanXFS(r)
	case "btrfs":
		return cleanBtrfs(r)
	case "vfat":
		return cleanFAT(r)
	}
	return "", fmt.Errorf("checking whether the file system is clean: not known for %q", fsType)
}

// cleanExt4 reads the super block at 1024, see "Super Block" in the kernel's
// documentation of ext4.
func cleanExt4(r io.ReaderAt) (string, error) {
	const (
		recover       = 0x4     // EXT4_FEATURE_INCOMPAT_RECOVER
		orphanPresent = 0x10000 // EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT
	)
	sb := make([]byte, 1024)
	if _, err := r.ReadAt(sb, 1024); err != nil {
		return "", fmt.Errorf("reading the super block of the ext4: %w", err)
	}
	le := binary.LittleEndian
	switch {
	case le.Uint16(sb[0x38:]) != 0xEF53:
		return "", errors.New("reading the super block of the ext4: wrong magic number")
	case le.Uint32(sb[0x60:])&recover != 0:
		return "", fmt.Errorf("%w: the journal needs recovery (ext4 feature needs_recovery is set)", ErrDirty)
	case le.Uint32(sb[0xE8:]) != 0:
		return "", fmt.Errorf("%w: inode %d is on the orphan list: a deleted file was open", ErrDirty, le.Uint32(sb[0xE8:]))
	case le.Uint32(sb[0x64:])&orphanPresent != 0:
		return "", fmt.Errorf("%w: the orphan file is not empty: a deleted file was open", ErrDirty)
	}
	return "the journal is empty (needs_recovery and orphan_present are clear, no orphans)", nil
}

// cleanBtrfs reads the super block at 64 KiB, see "On-disk format" in the btrfs
// documentation: a log tree exists only until the next commit.
func cleanBtrfs(r io.ReaderAt) (string, error) {
	sb := make([]byte, 4096)
	if _, err := r.ReadAt(sb, 0x10000); err != nil {
		return "", fmt.Errorf("reading the super block of the btrfs: %w", err)
	}
	if string(sb[0x40:0x48]) != "_BHRfS_M" {
		return "", errors.New("reading the super block of the btrfs: wrong magic number")
	}
	if root := binary.LittleEndian.Uint64(sb[0x60:]); root != 0 {
		return "", fmt.Errorf("%w: it has a log tree at %#x (log_root)", ErrDirty, root)
	}
	return fmt.Sprintf("there is no log tree (log_root is 0, generation %d)", binary.LittleEndian.Uint64(sb[0x48:])), nil
}

// cleanFAT reads the state byte of the boot sector, which Linux sets while a FAT
// is mounted for writing: offset 65 in FAT32, 37 before.
func cleanFAT(r io.ReaderAt) (string, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, 0); err != nil {
		return "", fmt.Errorf("reading the boot sector of the FAT: %w", err)
	}
	if sb[510] != 0x55 || sb[511] != 0xAA {
		return "", errors.New("reading the boot sector of the FAT: wrong signature")
	}
	at := 65
	if binary.LittleEndian.Uint16(sb[22:]) != 0 { // FAT12 and FAT16 have a 16 bit length
		at = 37
	}
	if sb[at]&1 != 0 {
		return "", fmt.Errorf("%w: the FAT is marked as in use", ErrDirty)
	}
	return "the FAT is not marked as in use", nil
}
