package kernel

import (
	"bytes"
	"fmt"
	"slices"

	"installer/disk/mounts"
)

// Superblock returns the record of a file system by its number, as in mountinfo, whether it is
// mounted or not; false if there is none.
func (v *View) Superblock(device mounts.DevNum) (s Superblock, found bool, err error) {
	supers, err := v.superblocksOf(device)
	if err == nil && len(supers) > 0 {
		found = true
		s, err = settled(func() (Superblock, error) { return v.record(supers[0], 0) })
	}
	if err != nil {
		return Superblock{}, false, fmt.Errorf("reading the kernel's own record of the superblock: %w", err)
	}
	return s, found, nil
}

// NumberOf returns the number of the file system with a UUID; false if there is none, or several.
func (v *View) NumberOf(uuid [16]byte) (n mounts.DevNum, found bool, err error) {
	all, err := v.superblocks()
	if err != nil {
		return n, false, fmt.Errorf("reading the kernel's own list of the superblocks: %w", err)
	}
	var list []uint64
	err = v.reader.each(all, v.super.uuid.offset, len(uuid), func(i int, block []byte) {
		if bytes.Equal(block, uuid[:]) {
			list = append(list, all[i])
		}
	})
	if err != nil || len(list) != 1 {
		return n, false, err
	}
	number, err := v.value(list[0], v.super.device)
	return deviceNumber(number), err == nil, err
}

// superblocksOf returns the addresses of the superblocks with the given numbers.
func (v *View) superblocksOf(devices ...mounts.DevNum) ([]uint64, error) {
	all, err := v.superblocks()
	if err != nil {
		return nil, err
	}
	numbers, err := v.reader.values(all, v.super.device)
	var list []uint64
	for i, n := range numbers {
		if slices.Contains(devices, deviceNumber(n)) {
			list = append(list, all[i])
		}
	}
	return list, err
}

// superblocks returns the addresses of all superblocks.
func (v *View) superblocks() ([]uint64, error) {
	task, err := v.memory.task()
	if err != nil {
		return nil, err
	}
	root, err := v.memory.follow(task, v.task.fs.offset, v.fs.root.offset)
	if err != nil {
		return nil, err
	}
	first, err := v.memory.follow(root-v.mount.inner.offset, v.mount.superblock.offset)
	if err != nil {
		return nil, err
	}
	list, err := v.reader.list(first + v.super.next.offset)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i] -= v.super.next.offset
	}
	list = append(list, first)
	roots, err := v.reader.values(list, v.super.root)
	if err != nil {
		return nil, err
	}
	owners, err := v.reader.values(roots, v.entry.superblock)
	if err != nil {
		return nil, err
	}
	var all []uint64
	for i, super := range list {
		// The head of the list is an entry too, and no superblock: it has no root that is its own.
		if roots[i] != 0 && owners[i] == super {
			all = append(all, super)
		}
	}
	return all, nil
}
