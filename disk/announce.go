package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"installer/disk/block"

	"golang.org/x/sys/unix"
)

// partitionList is the kernel's list of the partitions of an open disk.
type partitionList struct {
	file  *os.File
	host  host
	nodes []node // the whole disk first; empty for a raw file
}

// drop removes the partitions for which stale returns true. The exclusive claim on the disk keeps
// others from claiming a partition meanwhile, but a plain open still makes the kernel refuse.
func (k partitionList) drop(stale func(node) bool) error {
	known, err := k.partitions()
	if err != nil {
		return err
	}
	for _, p := range known {
		if !stale(p) {
			continue
		}
		err := blkpg(k.file, unix.BLKPG_DEL_PARTITION, p.number, 0, 0)
		if errors.Is(err, unix.EBUSY) {
			return &InUseError{Path: k.file.Name(), Err: err, Uses: []Use{{Kind: Opened, What: p.path(),
				Why: "open in " + k.host.openers(p.dev), Remedy: "close it"}}}
		}
		if err != nil && !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("removing partition %s from the kernel's list: %w", p.path(), err)
		}
	}
	return nil
}

// partitions returns the partitions that the kernel lists now; none for a raw file.
func (k partitionList) partitions() ([]node, error) {
	if len(k.nodes) == 0 {
		return nil, nil
	}
	return k.host.partitions(k.nodes[0])
}

// Announce makes the kernel's list of partitions equal the table, without a re-read of the whole
// table, which any open partition would block. Partitions that are right already are left alone. It
// checks the outcome in sysfs. Where the list would be wrong or outlive the disk, nothing is done:
// see [Disk.KeepsPartitions].
func (d *Disk) Announce(l Layout) error {
	if keeps, err := d.KeepsPartitions(); err != nil || !keeps {
		return err
	}
	if err := d.kernel.drop(func(p node) bool { return !l.has(p) }); err != nil {
		return err
	}
	for _, p := range l.Partitions {
		err := blkpg(d.file, unix.BLKPG_ADD_PARTITION, p.Number, p.Start, p.Size)
		// EBUSY means an overlap with a listed partition: with the same one, or the check below
		// fails.
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("announcing partition %d of %s to the kernel: %w", p.Number, d.Path(), err)
		}
	}
	return d.kernel.equals(l)
}

// KeepsPartitions reports whether the kernel keeps a list of partitions that goes with the disk. It
// keeps none for a raw file and for a device-mapper device. On a loop device that was set up
// without partition scanning the list is never removed: it would appear on the next file that gets
// the device.
func (d *Disk) KeepsPartitions() (bool, error) {
	if !d.IsBlock() {
		return false, nil
	}
	return d.kernel.host.keepsPartitions(d.kernel.nodes[0])
}

// keepsPartitions is [Disk.KeepsPartitions] of a block device. ext_range is 1 or 0 where the driver
// has no partitions.
func (h host) keepsPartitions(n node) (bool, error) {
	for _, a := range []struct {
		file string
		none int64 // the largest value that says "no partitions"
	}{{"ext_range", 1}, {"loop/partscan", 0}} {
		value, err := block.NumericAttribute(n.dir, a.file)
		switch {
		case errors.Is(err, fs.ErrNotExist): // an older kernel, or no loop device
		case err != nil:
			return false, fmt.Errorf("finding out whether the kernel keeps partitions on %s: %w", n.path(), err)
		case value <= a.none:
			return false, nil
		}
	}
	return true, nil
}

// has reports whether a layout has a partition exactly as the kernel sees it.
func (l Layout) has(n node) bool {
	for _, p := range l.Partitions {
		if p.Number == n.number {
			return p.Start == n.start && p.Size == n.size
		}
	}
	return false
}

// equals compares the kernel's list with the table.
func (k partitionList) equals(l Layout) error {
	known, err := k.partitions()
	if err != nil {
		return err
	}
	if len(known) != len(l.Partitions) {
		return fmt.Errorf("the kernel lists %d partitions on %s, the table has %d", len(known), k.file.Name(), len(l.Partitions))
	}
	for _, p := range known {
		if !l.has(p) {
			return fmt.Errorf("the kernel has %s at %d+%d, which is not in the table of %s", p.path(), p.start, p.size, k.file.Name())
		}
	}
	return nil
}

// blkpg adds a partition to the kernel's list, or deletes one (linux/blkpg.h).
func blkpg(disk *os.File, op int32, number int, start, size int64) error {
	part := unix.BlkpgPartition{Start: start, Length: size, Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&part)
	if errno != 0 {
		return errno
	}
	return nil
}
