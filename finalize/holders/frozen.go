package holders

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// No call of the kernel's reports whether a file system is frozen, but for freezing it, which keeps
// every writer waiting, and stays when the program is killed meanwhile. On xfs and ext4 a freeze
// leaves traces, and these are looked at; of all others, and where a file system is read-only, the
// kernel's own record says it.

// IsFrozen reports whether somebody has frozen the file system of m. The evidence is empty where
// that could not be read.
func IsFrozen(m mounts.Mount) (frozen bool, evidence string) {
	if !m.ReadOnlySuper() {
		switch m.FSType {
		case "xfs":
			frozen, evidence = frozenXFS(m)
		case "ext4", "ext3":
			frozen, evidence = frozenExt4(m)
		}
	}
	if evidence != "" {
		return frozen, evidence
	}
	super, err := kernel.Read(m)
	if err != nil {
		return false, ""
	}
	return super.Frozen, "the kernel's own record of the superblock"
}

// XFS_IOC_GET_RESBLKS of xfs_fs.h.
const xfsGetReserve = 0x80105873

// frozenXFS asks for the reserved blocks: every writable XFS has some, and a freeze gives them back
// until the thaw (xfs_save_resvblks in fs/xfs/xfs_super.c).
func frozenXFS(m mounts.Mount) (bool, string) {
	dir, err := openRoot(m)
	if err != nil {
		return false, ""
	}
	defer dir.Close()
	var reserve struct{ total, available uint64 }
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), xfsGetReserve, uintptr(unsafe.Pointer(&reserve)))
	if errno != 0 {
		return false, ""
	}
	return reserve.total == 0, fmt.Sprintf("XFS_IOC_GET_RESBLKS: %d reserved blocks, of which a freeze leaves none", reserve.total)
}

// openRoot opens the root directory of a mount. A file may be mounted on a file.
func openRoot(m mounts.Mount) (*os.File, error) {
	dir, err := os.OpenFile(m.Point, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the root of the file system: %w", err)
	}
	return dir, nil
}

// Fields of struct ext4_super_block in the kernel's fs/ext4/ext4.h, by their offset on the device.
const (
	ext4Compatible   = 1024 + 0x5c // s_feature_compat
	ext4Incompatible = 1024 + 0x60 // s_feature_incompat
	ext4HasJournal   = 0x4         // EXT4_FEATURE_COMPAT_HAS_JOURNAL
	ext4Recover      = 0x4         // EXT4_FEATURE_INCOMPAT_RECOVER
)

// frozenExt4 reads the superblock: while an ext4 with a journal is writable it says that the
// journal needs recovery, but for the time of a freeze (ext4_freeze in fs/ext4/super.c).
func frozenExt4(m mounts.Mount) (bool, string) {
	dev, err := openNode(m.Dev, m.Source)
	if err != nil {
		return false, ""
	}
	defer dev.Close()
	features := make([]byte, 8)
	if _, err := dev.ReadAt(features, ext4Compatible); err != nil {
		return false, ""
	}
	compatible := binary.LittleEndian.Uint32(features)
	incompatible := binary.LittleEndian.Uint32(features[ext4Incompatible-ext4Compatible:])
	if compatible&ext4HasJournal == 0 {
		return false, ""
	}
	return incompatible&ext4Recover == 0, fmt.Sprintf("superblock: incompatible features %#x, of which a freeze clears needs_recovery", incompatible)
}

// openNode opens a block device for reading, by the first path that is a node of it.
func openNode(n mounts.DevNum, paths ...string) (*os.File, error) {
	if name, err := Sysfs("/sys").Name(n); err == nil {
		paths = append(paths, nodePath(name))
	}
	for _, path := range paths {
		if got, ok := block.NumberOf(path); ok && got == n {
			return os.Open(path)
		}
	}
	return nil, fmt.Errorf("opening block device %s: no node of it was found (in a container, give it the host's /dev: -v /dev:/dev)", n)
}

// FrozenHolder stands for a freeze that somebody has made and not undone.
func FrozenHolder(m mounts.Mount, evidence string) Holder {
	return Holder{Class: Frozen, Path: m.Point, Evidence: evidence, Remedy: "thaw it: fsfreeze --unfreeze " + m.Point}
}
