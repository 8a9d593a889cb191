package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/disk/stack"
)

// sysfsSector is the unit of "start" and "size" in sysfs, whatever the device's own sector size is
// (Linux, Documentation/ABI/stable/sysfs-block).
const sysfsSector = 512

// host has the kernel's accounts of the disk that is surveyed.
type host struct {
	block.Host
	list func() (*mounts.Snapshot, error) // of the mounts of all namespaces
}

// liveHost returns the host of the running kernel.
func liveHost() host {
	return host{block.Live(), func() (*mounts.Snapshot, error) { return mounts.List(context.Background()) }}
}

// node is a block device as sysfs describes it.
type node struct {
	name   string // the kernel's name, such as "vda2"
	dev    block.Number
	dir    string // its directory in sysfs
	number int    // partition number; 0 for a whole disk
	start  int64  // bytes from the start of the disk
	size   int64  // bytes
	mapped string // name of a device-mapper device, else ""
	mapID  string // UUID of a device-mapper device, which begins with the name of its user
}

// device returns the facts by which the kinds of stacked devices differ. sysfs writes '!' where the
// name has a slash.
func (n node) device() stack.Device {
	return stack.Device{Name: strings.ReplaceAll(n.name, "!", "/"), Label: n.mapped, UUID: n.mapID}
}

// path returns the path by which a person knows the device.
func (n node) path() string { return n.device().Path() }

// node finds the block device of a number.
func (h host) node(dev block.Number) (node, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(h.Sys, "dev/block", dev.String()))
	if err != nil {
		return node{}, fmt.Errorf("finding block device %s in sysfs: %w", dev, err)
	}
	return h.nodeAt(dir)
}

// nodeAt reads the facts of the block device that a sysfs directory describes.
func (h host) nodeAt(dir string) (node, error) {
	n := node{name: filepath.Base(dir), dir: dir}
	text, err := block.Attribute(dir, "dev")
	if err != nil {
		return node{}, err
	}
	if n.dev, err = block.ParseNumber(text); err != nil {
		return node{}, err
	}
	for _, field := range []struct {
		file string
		unit int64
		into *int64
	}{{"start", sysfsSector, &n.start}, {"size", sysfsSector, &n.size}} {
		if *field.into, err = block.NumericAttribute(dir, field.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return node{}, err
		}
		*field.into *= field.unit
	}
	for _, field := range []struct {
		file string
		into *string
	}{{"dm/name", &n.mapped}, {"dm/uuid", &n.mapID}} {
		if *field.into, err = block.Attribute(dir, field.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return node{}, err
		}
	}
	number, err := block.NumericAttribute(dir, "partition")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return node{}, err
	}
	n.number = int(number)
	return n, nil
}

// partitions lists the kernel's partitions of a disk, by number.
func (h host) partitions(disk node) ([]node, error) {
	entries, err := os.ReadDir(disk.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the partitions of %s: %w", disk.path(), err)
	}
	var parts []node
	for _, e := range entries {
		dir := filepath.Join(disk.dir, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
			continue
		}
		p, err := h.nodeAt(dir)
		if err != nil {
			return nil, fmt.Errorf("reading partition %s of %s: %w", e.Name(), disk.path(), err)
		}
		parts = append(parts, p)
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].number < parts[j].number })
	return parts, nil
}

// model returns the vendor's name of a disk; where there is none, the name of its driver (virtio),
// the layer that it is (an LVM volume), or the kernel's name (loop).
func (n node) model() string {
	var words []string
	for _, f := range []string{"device/vendor", "device/model"} {
		// A vendor that is a PCI number (virtio) is of no use to a person.
		if s, err := block.Attribute(n.dir, f); err == nil && !strings.HasPrefix(s, "0x") {
			words = append(words, strings.TrimSpace(s))
		}
	}
	if len(words) > 0 {
		return strings.Join(words, " ")
	}
	if driver, err := os.Readlink(filepath.Join(n.dir, "device/driver")); err == nil {
		return filepath.Base(driver)
	}
	if below, err := os.ReadDir(filepath.Join(n.dir, "slaves")); err == nil && len(below) > 0 {
		return n.device().Layer().Noun
	}
	return n.name
}
