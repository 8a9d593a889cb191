package holders

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// Subject is a path that somebody asks about, made a target.
type Subject struct {
	Target Target
	Mount  *mounts.Mount // the mount that the path leads to; nil for a block device
	Blocks []Block       // the block devices beneath, with the file system on each as far as it is mounted
}

// Resolve finds out what path stands for: a block device, which has no mounts of
// its own (each mount of it or of one of its partitions is a holder), or else
// the mount that the path lies on, which is the target itself and no holder.
func Resolve(ctx context.Context, path string) (Subject, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Subject{}, fmt.Errorf("looking at what to examine: %w", &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return Subject{}, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return resolveDevice(snapshot, mounts.DevNum{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)})
	}
	return resolveMount(path, snapshot)
}

func resolveMount(path string, snapshot *mounts.Snapshot) (Subject, error) {
	id, unique, err := mounts.IDAt(path)
	if err != nil {
		return Subject{}, err
	}
	m, ok := mounts.Find(snapshot.Own().Mounts, id)
	if !ok {
		return Subject{}, fmt.Errorf("finding the mount of %s: mount %d is not in this namespace's mountinfo", path, id)
	}
	m.Unique = unique
	s := Subject{Target: MountTarget(m), Mount: &m}
	if err := s.Target.AddStatDevice(m.Point); err != nil {
		return Subject{}, err
	}
	number, err := BlockNumber(m)
	if err != nil || number == nil {
		return s, err
	}
	s.Target.addBlock(*number)
	s.Blocks = []Block{{Path: m.Source, Number: *number, FSType: m.FSType}}
	return s, nil
}

// BlockNumber returns the device that a mount's file system is stored on, nil if
// none. mountinfo does not tell that of a btrfs: its source does.
func BlockNumber(m mounts.Mount) (*mounts.DevNum, error) {
	if m.Dev.Major != 0 {
		return &m.Dev, nil
	}
	if m.FSType != "btrfs" {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(m.Source, &st); err != nil {
		return nil, fmt.Errorf("looking at the device of the btrfs on %s: %w", m.Point, &fs.PathError{Op: "stat", Path: m.Source, Err: err})
	}
	return &mounts.DevNum{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, nil
}

// resolveDevice takes a block device, and its partitions when it is a whole disk.
func resolveDevice(snapshot *mounts.Snapshot, disk mounts.DevNum) (Subject, error) {
	numbers, err := withPartitions(disk)
	if err != nil {
		return Subject{}, err
	}
	var s Subject
	for _, n := range numbers {
		name, err := kernelName(n)
		if err != nil {
			return Subject{}, err
		}
		b := Block{Path: "/dev/" + name, Number: n}
		s.Target.addBlock(n)
		s.Target.Devices = append(s.Target.Devices, n)
		for _, m := range snapshot.All {
			number, err := BlockNumber(m)
			if err != nil || number == nil || *number != n {
				continue // a btrfs whose device has no node here is not on this device's node either
			}
			b.FSType = m.FSType
			s.Target.addDevice(m)
		}
		s.Blocks = append(s.Blocks, b)
	}
	return s, nil
}

// withPartitions returns the number of a block device and of its partitions.
func withPartitions(disk mounts.DevNum) ([]mounts.DevNum, error) {
	numbers := []mounts.DevNum{disk}
	parts, err := filepath.Glob("/sys/dev/block/" + disk.String() + "/*/partition")
	if err != nil {
		return nil, fmt.Errorf("listing the partitions of device %s: %w", disk, err)
	}
	for _, p := range parts {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		if errors.Is(err, fs.ErrNotExist) { // removed since
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the partitions of device %s: %w", disk, err)
		}
		n, err := mounts.ParseDevNum(string(text[:len(text)-1]))
		if err != nil {
			return nil, fmt.Errorf("listing the partitions of device %s: %w", disk, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func (t *Target) addBlock(n mounts.DevNum) {
	for _, known := range t.Blocks {
		if known == n {
			return
		}
	}
	t.Blocks = append(t.Blocks, n)
}
