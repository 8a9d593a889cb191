package holders

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Target is a set of superblocks and mounts that may be held. A reference counts as holding it when
// it is to one of the devices or to one of the mounts.
type Target struct {
	// Devices are the superblocks, numbered as mountinfo numbers them (on btrfs that is not
	// st_dev).
	Devices []mounts.DevNum `json:"devices,omitempty"`
	// StatDevices are further numbers that stat(2) returns for files of the superblocks: one for
	// each btrfs subvolume that is known.
	StatDevices []mounts.DevNum `json:"stat_devices,omitempty"`
	// Btrfs are the ids of the btrfs file systems among them: the number of a superblock is known
	// only where it is mounted, and each subvolume has a number of its own.
	Btrfs []string `json:"btrfs,omitempty"`
	// Blocks are the block devices beneath.
	Blocks []mounts.DevNum `json:"blocks,omitempty"`
	// Mounts are the mounts that are the target, by the id in mountinfo. They are no holders
	// themselves; every other mount of the devices is one.
	Mounts []int `json:"mounts,omitempty"`
	// Probe is a mount that the kernel is to be asked about, see Referenced, when no holder is
	// found: its answer makes up for processes that cannot be read.
	Probe *mounts.Mount `json:"-"`
}

// MountTarget returns the target that consists of these mounts, and of the superblocks of those
// that are stored on a device. The others (proc, tmpfs) may well be in use elsewhere: see
// AddSuperblock.
func MountTarget(list ...mounts.Mount) Target {
	var t Target
	for _, m := range list {
		t.Mounts = append(t.Mounts, m.ID)
		if Stored(m) {
			t.AddSuperblock(m)
		}
	}
	return t
}

// Stored reports whether a mount's superblock is on a block device of its own. That of a btrfs has
// an anonymous number.
func Stored(m mounts.Mount) bool { return m.Dev.Major != 0 || m.FSType == "btrfs" }

// AddSuperblock makes the superblock of a mount part of the target, with or without a block device
// beneath it: every other mount of it, in whatever namespace, is a holder then.
func (t *Target) AddSuperblock(m mounts.Mount) {
	if slices.Contains(t.Devices, m.Dev) {
		return
	}
	t.Devices = append(t.Devices, m.Dev)
	if m.Dev.Major != 0 {
		t.Blocks = append(t.Blocks, m.Dev)
	}
}

// AddStatDevice adds the number that stat(2) returns for the mount at path.
func (t *Target) AddStatDevice(path string) error {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	if err != nil {
		return fmt.Errorf("reading the device number of %s: %w", path, err)
	}
	t.StatDevices = append(t.StatDevices, mounts.DevNum{Major: st.Dev_major, Minor: st.Dev_minor})
	return nil
}

func (t *Target) onDevice(d mounts.DevNum) bool { return slices.Contains(t.Devices, d) }

// isStat reports whether stat(2) returning d means a file of the target.
func (t *Target) isStat(d mounts.DevNum) bool {
	if slices.Contains(t.StatDevices, d) {
		return true
	}
	return d.Major != 0 && t.onDevice(d)
}
