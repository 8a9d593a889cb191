package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/disk/stack"
)

// Sysfs is the directory in which the kernel shows its block devices: "/sys" but in tests.
type Sysfs string

const sys Sysfs = "/sys"

// standing is a device that stands on another.
type standing struct {
	name   string
	number mounts.DevNum
	on     mounts.DevNum
}

// above lists the devices that stand on a device, and those on them and on their partitions, each of
// them before the one that it stands on.
func (s Sysfs) above(n mounts.DevNum) ([]standing, error) {
	names, err := Stacked(filepath.Join(s.numbered(n), "holders"))
	if err != nil {
		return nil, err
	}
	var list []standing
	for _, name := range names {
		text, err := block.Attribute(s.Dir(name), "dev")
		if block.Vanished(err) {
			continue // taken apart since
		}
		if err != nil {
			return nil, fmt.Errorf("reading the number of %s: %w", name, err)
		}
		number, err := block.ParseNumber(text)
		if err != nil {
			return nil, fmt.Errorf("reading the number of %s: %w", name, err)
		}
		parts, err := s.withPartitions(number)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			higher, err := s.above(p)
			if err != nil {
				return nil, err
			}
			list = append(list, higher...)
		}
		list = append(list, standing{name, number, n})
	}
	return list, nil
}

// Claimers returns the devices that stand on a device, directly or not, as holders of it: each
// before the one that it stands on, as they must be taken apart.
func (s Sysfs) Claimers(n mounts.DevNum) ([]Holder, error) {
	list, err := s.above(n)
	if err != nil {
		return nil, err
	}
	var found []Holder
	named := map[string]bool{}
	for _, d := range list {
		if named[d.name] {
			continue
		}
		named[d.name] = true
		layer, err := s.Layer(d.name)
		if err != nil {
			return nil, err
		}
		found = append(found, Holder{Class: BlockClaim, Path: "/dev/" + d.name,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/holders/%s (%s)", d.on, d.name, layer.Noun), Remedy: "take it apart: " + layer.Remedy})
	}
	if set, ok := s.CacheSet(n); ok {
		found = append(found, Holder{Class: BlockClaim, Path: set.Noun,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/bcache/set (%s)", n, set.Noun), Remedy: "take it apart: " + set.Remedy})
	}
	return found, nil
}

// CacheSet returns the bcache set that a device belongs to; false where it belongs to none.
func (s Sysfs) CacheSet(n mounts.DevNum) (stack.Layer, bool) {
	set, err := os.Readlink(filepath.Join(s.numbered(n), "bcache/set"))
	if err != nil {
		return stack.Layer{}, false // only members of a set have the link
	}
	return stack.CacheSet(filepath.Base(set)), true
}

// withPartitions returns the number of a block device and of its partitions.
func (s Sysfs) withPartitions(disk mounts.DevNum) ([]mounts.DevNum, error) {
	numbers := []mounts.DevNum{disk}
	parts, err := filepath.Glob(filepath.Join(s.numbered(disk), "*/partition"))
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
		n, err := block.ParseNumber(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("listing the partitions of device %s: %w", disk, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func (s Sysfs) numbered(n mounts.DevNum) string {
	return filepath.Join(string(s), "dev/block", n.String())
}

// Name returns the kernel's name of a block device, such as dm-0.
func (s Sysfs) Name(n mounts.DevNum) (string, error) {
	link, err := os.Readlink(s.numbered(n))
	if err != nil {
		return "", fmt.Errorf("finding the name of device %s (is /sys mounted?): %w", n, err)
	}
	return filepath.Base(link), nil
}

// Stacked returns the device names in a directory of a device, which not every device has.
func Stacked(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the devices that a device is stacked with: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.ReplaceAll(e.Name(), "!", "/"))
	}
	return names, nil
}

// Layer returns the layer that a device is.
func (s Sysfs) Layer(name string) (stack.Layer, error) {
	lower, err := Stacked(filepath.Join(s.Dir(name), "slaves"))
	if err != nil {
		return stack.Layer{}, err
	}
	d := stack.Device{Name: name, Label: s.Read(name, "dm/name"), UUID: s.Read(name, "dm/uuid"), Level: s.Read(name, "md/level")}
	if len(lower) > 0 {
		d.Below = "/dev/" + lower[0]
	}
	return d.Layer(), nil
}

// Dir returns the directory of a block device, be it a partition.
func (s Sysfs) Dir(name string) string {
	return filepath.Join(string(s), "class/block", strings.ReplaceAll(name, "/", "!"))
}

// DiskOf returns the disk of a partition; false for another device.
func (s Sysfs) DiskOf(name string) (string, bool) {
	if s.Read(name, "partition") == "" {
		return "", false
	}
	dir, err := filepath.EvalSymlinks(s.Dir(name))
	return strings.ReplaceAll(filepath.Base(filepath.Dir(dir)), "!", "/"), err == nil
}

// Read returns an attribute of a block device, "" where it has none of that name.
func (s Sysfs) Read(name, file string) string {
	text, err := os.ReadFile(filepath.Join(s.Dir(name), file))
	if err != nil {
		return "" // only devices of that kind have the file
	}
	return strings.TrimSpace(string(text))
}
