package mounted

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/mounts"
	"installer/finalize/holders"
)

// sysfsSector is the unit of "start" in sysfs, in bytes, whatever the device's own sectors are
// (Linux, Documentation/ABI/stable/sysfs-block).
const sysfsSector = 512

// Place is the partition that a file system is, on the disk that it is part of.
type Place struct {
	Disk       string // path of a block device, or of a raw disk file
	SectorSize int    // bytes
	Number     int    // of the partition, from 1
	// BIOSBoot is the disk's BIOS boot partition, nil if it has none.
	BIOSBoot *disk.Partition
}

// blockNumber is the device that a file system is stored on.
func blockNumber(m mounts.Mount) (mounts.DevNum, error) {
	number, err := holders.BlockNumber(m)
	if err == nil && number == nil {
		err = refuse(m.Point, "its "+m.FSType+" is stored on no block device")
	}
	if err != nil {
		return mounts.DevNum{}, err
	}
	return *number, nil
}

// Beneath finds the partition that a block device is: one that the kernel knows, or a loop device
// over a range of a disk or of a disk file. Anything else, such as a device mapper's, is an error,
// which says why.
func Beneath(dev mounts.DevNum) (*Place, error) {
	path, start, err := locate("/sys", dev)
	if err != nil {
		return nil, err
	}
	table, sector, err := readTable(path)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table of %s: %w", path, err)
	}
	p := &Place{Disk: path, SectorSize: sector}
	for _, part := range table.Partitions {
		if part.Start == start {
			p.Number = part.Number
		}
		if part.Type == disk.TypeBIOSBoot && p.BIOSBoot == nil {
			p.BIOSBoot = &part
		}
	}
	if p.Number == 0 {
		return nil, fmt.Errorf("the partition table of %s has no partition at byte %d", path, start)
	}
	return p, nil
}

// locate finds the disk, and where on it the device starts, in bytes.
func locate(sys string, dev mounts.DevNum) (path string, start int64, err error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", dev.String()))
	if err != nil {
		return "", 0, fmt.Errorf("finding block device %s in sysfs: %w", dev, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		sectors, err := block.NumericAttribute(dir, "start")
		if err != nil {
			return "", 0, err
		}
		path, err := nodeOf(filepath.Dir(dir))
		return path, sectors * sysfsSector, err
	}
	backing, err := block.Attribute(dir, "loop/backing_file")
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, fmt.Errorf("%s is no partition of a disk", name(dir))
	}
	if err != nil {
		return "", 0, fmt.Errorf("finding the backing file of %s: %w", name(dir), err)
	}
	start, err = block.NumericAttribute(dir, "loop/offset")
	if err == nil && start == 0 {
		err = fmt.Errorf("%s is no partition, but the whole of %s", name(dir), backing)
	}
	return backing, start, err
}

// name is that of the device which a directory of sysfs describes; sysfs writes '!' where it has a
// slash.
func name(dir string) string { return "/dev/" + strings.ReplaceAll(filepath.Base(dir), "!", "/") }

// nodeOf is a node of the device that a directory of sysfs describes.
func nodeOf(dir string) (string, error) {
	text, err := block.Attribute(dir, "dev")
	if err != nil {
		return "", fmt.Errorf("finding the disk %s: %w", name(dir), err)
	}
	want, err := block.ParseNumber(text)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(name(dir), &st); err != nil {
		return "", fmt.Errorf("finding the disk %s (in a container, give it the host's /dev: -v /dev:/dev): %w", name(dir), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || block.Split(st.Rdev) != want {
		return "", fmt.Errorf("%s is not the device %s (in a container, give it the host's /dev: -v /dev:/dev)", name(dir), want)
	}
	return name(dir), nil
}

// readTable reads the GPT of a disk. The sectors of a disk file are of the size that makes sense of
// it.
func readTable(path string) (disk.GPT, int, error) {
	f, err := os.Open(path)
	if err != nil {
		return disk.GPT{}, 0, err
	}
	defer f.Close()
	sizes := []int{512, 4096}
	if sector, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err == nil {
		sizes = []int{sector}
	}
	var failures []error
	for _, sector := range sizes {
		t, err := disk.ReadGPT(f, sector, 1)
		if err == nil {
			return t, sector, nil
		}
		failures = append(failures, err)
	}
	return disk.GPT{}, 0, errors.Join(failures...)
}
