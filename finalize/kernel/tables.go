package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"

	"installer/disk/mounts"
)

// tables are the kernel's tables.
type tables struct {
	*layout
	memory *memory
	reader *reader // nil where single places are read only
	// processors are the offsets of the processors' own memories.
	processors []uint64
}

// findProcessors finds the own memory of each processor, by a map that has a value in each: the map
// has the address to which the offset is added.
func (t *tables) findProcessors() error {
	count, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("counting the processors: %w", err)
	}
	file, err := t.file(t.memory.each.FD())
	if err != nil {
		return err
	}
	value, err := t.memory.follow(file, t.files.private.offset, t.array.offset)
	if err != nil {
		return err
	}
	for n := range count {
		own, err := t.memory.ofProcessor(n)
		if err != nil {
			return err
		}
		if own == 0 {
			return fmt.Errorf("processor %d has no value in a BPF map", n)
		}
		t.processors = append(t.processors, own-value)
	}
	return nil
}

// file returns the address of an open file of this process.
func (t *tables) file(fd int) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	task, err := t.memory.task()
	if err != nil {
		return 0, err
	}
	list, err := t.memory.follow(task, t.task.files.offset, t.files.table.offset, t.files.list.offset)
	if err != nil {
		return 0, err
	}
	return t.memory.follow(list, 8*uint64(fd))
}

// mountOf returns the address of the mount that an open file is on.
func (t *tables) mountOf(fd int) (uint64, error) {
	file, err := t.file(fd)
	if err != nil {
		return 0, err
	}
	outer, err := t.memory.follow(file, t.files.mount.offset)
	if err != nil {
		return 0, err
	}
	return outer - t.mount.inner.offset, nil
}

// errChanged says that a table changed while it was read.
var errChanged = errors.New("it changed meanwhile")

// superblock reads the record of the file system of a mount.
func (t *tables) superblock(at uint64) (s Superblock, err error) {
	super, err := t.memory.follow(at, t.mount.superblock.offset)
	if err != nil {
		return s, err
	}
	return t.record(super, at)
}

// record reads the record of a file system. The mount is the one whose unmount others may follow, 0
// if there is none.
func (t *tables) record(super, mount uint64) (s Superblock, err error) {
	list, err := t.mountsOf(super)
	if err != nil {
		return s, err
	}
	for _, each := range list {
		m, err := t.readMount(each)
		if err != nil {
			return s, err
		}
		if mount != 0 {
			if m.Follows, err = t.follows(each, mount); err != nil {
				return s, err
			}
		}
		s.Mounts = append(s.Mounts, m)
	}
	if err := t.numbers(super, &s); err != nil {
		return s, err
	}
	s.Others = s.Active - len(list)
	if again, err := t.mountsOf(super); err != nil || !slices.Equal(again, list) {
		return s, errors.Join(errChanged, err)
	}
	return s, nil
}

// numbers reads what is in the record itself.
func (t *tables) numbers(super uint64, s *Superblock) error {
	var values [7]uint64
	var err error
	for i, f := range []field{t.super.active, t.super.count, t.super.flags, t.super.frozen, t.super.device, t.super.freezes, t.super.kernelFreezes} {
		if f.size == 0 {
			continue
		}
		if values[i], err = t.value(super, f); err != nil {
			return err
		}
	}
	s.Active, s.Count, s.Flags = int(int32(values[0])), int(int32(values[1])), values[2]
	s.Frozen, s.Freezes = values[3] != 0, int(values[5]+values[6])
	s.Device = deviceNumber(values[4])
	kind, err := t.value(super, t.super.kind)
	if err != nil {
		return err
	}
	s.Type, err = t.text(kind, t.super.kindName)
	return err
}

// deviceNumber splits a device number as the kernel has it.
func deviceNumber(n uint64) mounts.DevNum {
	const minorBits = 20
	return mounts.DevNum{Major: uint32(n >> minorBits), Minor: uint32(n & (1<<minorBits - 1))}
}

func (t *tables) value(at uint64, f field) (uint64, error) {
	return t.memory.number(at+f.offset, f.size)
}

// mountsOf returns the addresses of the mounts of a superblock.
func (t *tables) mountsOf(super uint64) ([]uint64, error) {
	head := super + t.super.mounts.offset
	if !t.super.mounts.pointer {
		return t.list(head, t.mount.next.offset)
	}
	var list []uint64
	at, err := t.memory.number(head, 8)
	for err == nil && at != 0 && len(list) < mostEntries {
		list = append(list, at)
		at, err = t.memory.number(at+t.mount.next.offset, 8)
	}
	if at != 0 {
		err = errors.Join(errChanged, err)
	}
	return list, err
}

// mostEntries bounds a list.
const mostEntries = 1 << 16

// list returns the addresses of the structures in one of the kernel's circular lists, which begins
// at head and goes on in a field of each.
func (t *tables) list(head, link uint64) ([]uint64, error) {
	var list []uint64
	at, err := t.memory.follow(head, 0)
	for err == nil && at != head {
		if len(list) == mostEntries {
			return nil, errChanged
		}
		list = append(list, at-link)
		at, err = t.memory.follow(at, 0)
	}
	return list, err
}

// idle is how often the kernel itself refers to an attached mount.
const idle = 1

// readMount reads a mount.
func (t *tables) readMount(at uint64) (m Mount, err error) {
	id, err := t.value(at, t.mount.id)
	if err != nil {
		return m, err
	}
	m.ID = int(id)
	if t.mount.unique.size > 0 {
		if m.Unique, err = t.value(at, t.mount.unique); err != nil {
			return m, err
		}
	}
	if m.Namespace, err = t.namespaceOf(at); err != nil {
		return m, err
	}
	count, err := t.references(at)
	if err != nil {
		return m, err
	}
	children, err := t.list(at+t.mount.children.offset, t.mount.sibling.offset)
	if err != nil {
		return m, err
	}
	m.Uses = count - idle
	if len(children) > 0 {
		pins, err := t.childrenPin()
		if err != nil {
			return m, err
		}
		if pins {
			m.Uses -= len(children)
		}
	}
	return m, nil
}

// Mounts that are in no namespace may have one that is no namespace: of a detached tree, whose
// inode number is MNT_NS_ANON_INO since Linux 6.17 and 0 before, or an errno in place of a pointer.
const (
	anonymousInode = 0xEFFFFFF7
	mostErrnos     = 4095
)

// namespaceOf returns the inode number of a mount's namespace, 0 if it is in none.
func (t *tables) namespaceOf(at uint64) (uint64, error) {
	namespace, err := t.value(at, t.mount.namespace)
	if err != nil || namespace == 0 || namespace > ^uint64(mostErrnos) {
		return 0, err
	}
	inode, err := t.value(namespace, t.inode)
	if inode == anonymousInode {
		inode = 0
	}
	return inode, err
}

// references returns how often a mount is referred to. Every processor counts for itself, and no
// lock is held: a reference that is taken by one and given back by another meanwhile must not hide
// one that lasts.
func (t *tables) references(at uint64) (int, error) {
	if t.given.size > 0 {
		given, err := t.counts(at, t.given) // before those taken, so that none is missing
		if err != nil {
			return 0, err
		}
		taken, err := t.counts(at, t.count)
		return sum(taken) - sum(given), err
	}
	counts, err := t.counts(at, t.count)
	for range rounds {
		if err != nil {
			return 0, err
		}
		before := counts
		if counts, err = t.counts(at, t.count); err == nil && slices.Equal(before, counts) {
			return sum(counts), nil
		}
	}
	return max(sum(counts), idle+1), err // it is used all the time
}

// rounds is how often a table is read that changes meanwhile.
const rounds = 3

// settled reads a table again that changed while it was read, a few times at most.
func settled[T any](read func() (T, error)) (value T, err error) {
	for range rounds {
		if value, err = read(); err == nil {
			return value, nil
		}
	}
	return value, err
}

// counts returns the counts of a mount that each processor has.
func (t *tables) counts(at uint64, f field) ([]uint64, error) {
	counts, err := t.memory.follow(at, t.mount.counts.offset)
	if err != nil {
		return nil, err
	}
	list := make([]uint64, len(t.processors))
	for i, own := range t.processors {
		if list[i], err = t.value(counts+own, f); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// sum adds up counts of 32 bits, of which single ones may be negative.
func sum(counts []uint64) int {
	var total int32
	for _, n := range counts {
		total += int32(n)
	}
	return int(total)
}
