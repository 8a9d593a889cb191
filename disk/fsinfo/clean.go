package fsinfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrDirty means that the log or journal is not empty: the next mount would replay it, which a
	// boot loader cannot.
	ErrDirty = errors.New("the file system is not clean")
	// ErrDamaged means that the kernel has recorded errors of the file system.
	ErrDamaged = errors.New("the file system has errors recorded")
	// ErrUnknownType means that CheckClean does not read file systems of the type.
	ErrUnknownType = errors.New("the log of this type is not known")
)

// CheckClean reads the superblock and the log of a file system and returns the evidence, for
// people, that the next mount replays nothing. Its error wraps [ErrDirty] where the next mount
// would, and [ErrDamaged] where errors are recorded. The type may also be "ext2" or "ext3".
func CheckClean(t Type, r io.ReaderAt) (string, error) {
	switch t {
	case Ext4, "ext3", "ext2":
		return cleanExt4(r)
	case XFS:
		return cleanXFS(r)
	case Btrfs:
		return cleanBtrfs(r)
	case VFAT:
		return cleanFAT(r)
	}
	return "", fmt.Errorf("checking whether the %s is clean: %w", t, ErrUnknownType)
}

// cleanExt4 reads "Super Block" in the kernel's documentation of ext4.
func cleanExt4(r io.ReaderAt) (string, error) {
	const (
		hasJournal    = 0x4     // EXT4_FEATURE_COMPAT_HAS_JOURNAL
		recover       = 0x4     // EXT4_FEATURE_INCOMPAT_RECOVER
		orphanPresent = 0x10000 // EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT
		valid         = 0x1     // EXT4_VALID_FS, cleared while one without a journal is written to
		hasErrors     = 0x2     // EXT4_ERROR_FS
	)
	sb := make([]byte, 1024)
	if _, err := r.ReadAt(sb, Ext4Offset); err != nil {
		return "", fmt.Errorf("reading the superblock of the ext4: %w", err)
	}
	le := binary.LittleEndian
	state, errorCount := le.Uint16(sb[0x3a:]), le.Uint32(sb[0x194:])
	journal := le.Uint32(sb[0x5c:])&hasJournal != 0
	switch {
	case le.Uint16(sb[0x38:]) != ext4Magic:
		return "", errors.New("reading the superblock of the ext4: wrong magic number")
	case le.Uint32(sb[0x60:])&recover != 0:
		return "", fmt.Errorf("%w: the journal needs recovery (ext4 feature needs_recovery is set)", ErrDirty)
	case le.Uint32(sb[0xe8:]) != 0:
		return "", fmt.Errorf("%w: inode %d is on the orphan list: a deleted file was open", ErrDirty, le.Uint32(sb[0xe8:]))
	case le.Uint32(sb[0x64:])&orphanPresent != 0:
		return "", fmt.Errorf("%w: the orphan file is not empty: a deleted file was open", ErrDirty)
	case !journal && state&valid == 0:
		return "", fmt.Errorf("%w: it has no journal, and was not unmounted", ErrDirty)
	case state&hasErrors != 0 || errorCount != 0:
		return "", fmt.Errorf("%w: the ext4 superblock counts %d (state %#x), the last one found by %q; to do: run e2fsck -f on it",
			ErrDamaged, errorCount, state, text(sb[0x1e0:0x200]))
	case !journal:
		return "there is no journal, and it was unmounted", nil
	}
	return "the journal is empty (needs_recovery and orphan_present are clear, no orphans)", nil
}

// cleanBtrfs reads "On-disk format" of the btrfs documentation: a log tree exists only until the
// next commit.
func cleanBtrfs(r io.ReaderAt) (string, error) {
	const hasErrors = 1 << 2 // BTRFS_SUPER_FLAG_ERROR
	sb := make([]byte, largest)
	if _, err := r.ReadAt(sb, BtrfsOffset); err != nil {
		return "", fmt.Errorf("reading the superblock of the btrfs: %w", err)
	}
	le := binary.LittleEndian
	switch root := le.Uint64(sb[0x60:]); {
	case string(sb[0x40:0x48]) != btrfsMagic:
		return "", errors.New("reading the superblock of the btrfs: wrong magic number")
	case root != 0:
		return "", fmt.Errorf("%w: it has a log tree at %#x (log_root)", ErrDirty, root)
	case le.Uint64(sb[0x38:])&hasErrors != 0:
		return "", fmt.Errorf("%w: the btrfs superblock has the flag ERROR; to do: run btrfs check on it", ErrDamaged)
	}
	return fmt.Sprintf("there is no log tree (log_root is 0, generation %d)", le.Uint64(sb[0x48:])), nil
}

// cleanFAT reads the state byte of the boot sector, at 65 in FAT32 and at 37 before. Linux sets its
// lowest bit while a FAT is mounted for writing; the next bit records an input/output error.
func cleanFAT(r io.ReaderAt) (string, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, 0); err != nil {
		return "", fmt.Errorf("reading the boot sector of the FAT: %w", err)
	}
	if sb[510] != 0x55 || sb[511] != 0xaa {
		return "", errors.New("reading the boot sector of the FAT: wrong signature")
	}
	at := 65
	if binary.LittleEndian.Uint16(sb[22:]) != 0 { // FAT12 and FAT16 have a 16 bit length
		at = 37
	}
	switch state := sb[at]; {
	case state&1 != 0:
		return "", fmt.Errorf("%w: the FAT is marked as in use", ErrDirty)
	case state&2 != 0:
		return "", fmt.Errorf("%w: the FAT is marked as having had an input/output error; to do: run fsck.fat on it", ErrDamaged)
	}
	return "the FAT is not marked as in use", nil
}
