package holders

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Subject is a path that somebody asks about, made a target.
type Subject struct {
	Target Target
	Mount  *mounts.Mount // the mount that the path leads to; nil for a block device
	// Blocks are the block devices beneath. Of a whole disk, it comes first, before its partitions.
	Blocks []Block
	// stacked are the devices that stand on the block device.
	stacked []Holder
	unseen  []Unseen
}

// Resolve finds the target that path stands for: a block device, which has no mounts of its own
// (each mount of it or of one of its partitions is a holder), or else the mount that the path lies
// on, which is the target itself and no holder. Symbolic links are followed.
func Resolve(ctx context.Context, path string) (Subject, error) {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return Subject{}, err
	}
	index, err := indexBtrfs(snapshot)
	if err != nil {
		return Subject{}, err
	}
	if number, ok := block.NumberOf(absolute(path)); ok {
		return resolveDevice(snapshot, index, number, path)
	}
	return resolveMount(path, snapshot, index)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// mountOfPath returns the mount that a path leads to. The path is opened as a place, which asks no
// driver and no server, and so opens no pipe and no device.
func mountOfPath(path string) (id int, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("looking at the path to examine: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	return mountOfOwn(fd)
}

func resolveMount(path string, snapshot *mounts.Snapshot, index btrfsIndex) (Subject, error) {
	id, err := mountOfPath(path)
	if err != nil {
		return Subject{}, err
	}
	for ns, m := range snapshot.All {
		if m.ID == id {
			return mountSubject(m, ns.Own, path, index)
		}
	}
	return Subject{}, fmt.Errorf("finding the mount of %s: mount %d is in no mount namespace that can be seen", path, id)
}

// mountSubject makes a mount the target. The kernel is asked only about a mount of the own
// namespace, where its mount point can be reached.
func mountSubject(m mounts.Mount, own bool, path string, index btrfsIndex) (Subject, error) {
	s := Subject{Target: Target{Mounts: []int{m.ID}}, Mount: &m}
	s.Target.AddSuperblock(m)
	if own {
		if id, unique, err := mounts.IDAt(m.Point); err == nil && id == m.ID {
			m.Unique = unique
			s.Target.Probe = &m
		}
	}
	if err := s.Target.AddStatDevice(path); err != nil {
		return Subject{}, err
	}
	numbers := blockNumbers(m, index)
	if m.FSType == "btrfs" && len(numbers) == 0 {
		s.unseen = append(s.unseen, Unseen{Spot: Devices, Subject: "the devices of the btrfs on " + m.Point,
			Reason: "/sys/fs/btrfs shows none", Count: 1})
	}
	for _, n := range numbers {
		s.Target.addBlock(n)
		s.Blocks = append(s.Blocks, Block{Path: m.Source, Number: n})
	}
	return s, nil
}

// BlockNumbers returns the devices that a mount's file system is stored on, none if it is on no
// device. mountinfo does not show those of a btrfs: /sys/fs/btrfs does.
func BlockNumbers(m mounts.Mount) ([]mounts.DevNum, error) {
	var index btrfsIndex
	if m.FSType == "btrfs" {
		var err error
		own := mounts.Namespace{Own: true, Mounts: []mounts.Mount{m}}
		if index, err = indexBtrfs(&mounts.Snapshot{Namespaces: []mounts.Namespace{own}}); err != nil {
			return nil, err
		}
	}
	numbers := blockNumbers(m, index)
	if m.FSType == "btrfs" && len(numbers) == 0 {
		return nil, fmt.Errorf("finding the devices of the btrfs on %s: /sys/fs/btrfs shows none with the source %s (is /sys mounted?)", m.Point, m.Source)
	}
	return numbers, nil
}

// blockNumbers is BlockNumbers by an index; the device that is the mount's source comes first.
func blockNumbers(m mounts.Mount, index btrfsIndex) []mounts.DevNum {
	if m.Dev.Major != 0 {
		return []mounts.DevNum{m.Dev}
	}
	if m.FSType != "btrfs" {
		return nil
	}
	source, known := block.NumberOf(m.Source)
	b := index.found[m.Dev]
	if b == nil && known {
		return []mounts.DevNum{source}
	}
	if b == nil {
		return nil
	}
	numbers := slices.Clone(b.devices)
	if i := slices.Index(numbers, source); known && i > 0 {
		numbers[0], numbers[i] = numbers[i], numbers[0]
	}
	return numbers
}

// BlockNumber returns the first of BlockNumbers, nil if there is none.
func BlockNumber(m mounts.Mount) (*mounts.DevNum, error) {
	numbers, err := BlockNumbers(m)
	if err != nil || len(numbers) == 0 {
		return nil, err
	}
	return &numbers[0], nil
}

// resolveDevice takes a block device, and its partitions when it is a whole disk. The file systems
// of devices that stand on it belong to the target too.
func resolveDevice(snapshot *mounts.Snapshot, index btrfsIndex, disk mounts.DevNum, path string) (Subject, error) {
	numbers, err := sys.withPartitions(disk)
	if err != nil {
		return Subject{}, err
	}
	if index.list == nil { // nothing of it is mounted, but it may live
		if index.list, err = listBtrfs(); err != nil {
			return Subject{}, err
		}
	}
	var s Subject
	for _, n := range numbers {
		name, err := Sysfs("/sys").Name(n)
		if errors.Is(err, fs.ErrNotExist) && n != disk { // a partition that was removed since
			continue
		}
		if err != nil {
			return Subject{}, err
		}
		b := Block{Path: nodePath(name), Number: n}
		if n == disk {
			b.Path = path
		}
		s.Blocks = append(s.Blocks, b)
		s.addDevice(n, index)
		if err := s.addStacked(n, index); err != nil {
			return Subject{}, err
		}
	}
	s.noteUnknown(snapshot, index)
	return s, nil
}

// addDevice makes a device and the file system on it part of the target.
func (s *Subject) addDevice(n mounts.DevNum, index btrfsIndex) {
	if slices.Contains(s.Target.Blocks, n) {
		return
	}
	s.Target.addBlock(n)
	s.Target.Devices = append(s.Target.Devices, n)
	if fs := index.withDevice(n); fs != nil && !slices.Contains(s.Target.Btrfs, fs.id.String()) {
		s.Target.Btrfs = append(s.Target.Btrfs, fs.id.String())
		s.Target.Devices = append(s.Target.Devices, index.numbersOf(fs)...)
	}
}

// addStacked adds the devices that stand on a device, as holders, and their file systems.
func (s *Subject) addStacked(n mounts.DevNum, index btrfsIndex) error {
	claimers, err := sys.Claimers(n)
	if err != nil {
		return err
	}
	for _, c := range claimers {
		if !slices.ContainsFunc(s.stacked, func(h Holder) bool { return h.Path == c.Path }) {
			s.stacked = append(s.stacked, c)
		}
	}
	list, err := sys.above(n)
	if err != nil {
		return err
	}
	for _, d := range list {
		numbers, err := sys.withPartitions(d.number)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			s.addDevice(n, index)
		}
	}
	return nil
}

// noteUnknown records a mounted btrfs of which no device is known, where one that lives on the
// target was not found among the mounts: it may be that one.
func (s *Subject) noteUnknown(snapshot *mounts.Snapshot, index btrfsIndex) {
	if !slices.ContainsFunc(s.Target.Btrfs, func(id string) bool { return !index.isMounted(id) }) {
		return
	}
	for _, m := range snapshot.All {
		if m.FSType == "btrfs" && index.found[m.Dev] == nil {
			s.unseen = append(s.unseen, Unseen{Spot: Devices, Subject: fmt.Sprintf("the devices of the btrfs on %s, source %s", m.Point, m.Source),
				Reason: "/sys/fs/btrfs shows none", Count: 1})
			return
		}
	}
}

// nodePath returns the usual node of a device; sysfs writes '!' where its name has a slash.
func nodePath(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }

func (t *Target) addBlock(n mounts.DevNum) {
	if !slices.Contains(t.Blocks, n) {
		t.Blocks = append(t.Blocks, n)
	}
}
