package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/disk/stack"
	"installer/finalize/mounts"
)

// Sysfs is the directory in which the kernel shows its block devices: "/sys" but in tests.
type Sysfs string

// Claimers returns the devices that stand on a device, as holders of it.
func (s Sysfs) Claimers(n mounts.DevNum) ([]Holder, error) {
	dir := filepath.Join(string(s), "dev/block", n.String())
	upper, err := Stacked(filepath.Join(dir, "holders"))
	if err != nil {
		return nil, err
	}
	var found []Holder
	for _, name := range upper {
		layer, err := s.Layer(name)
		if err != nil {
			return nil, err
		}
		found = append(found, Holder{Class: BlockClaim, Path: "/dev/" + name,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/holders/%s (%s)", n, name, layer.Noun), Remedy: "take it apart: " + layer.Remedy})
	}
	if set, err := os.Readlink(filepath.Join(dir, "bcache/set")); err == nil {
		layer := stack.CacheSet(filepath.Base(set))
		found = append(found, Holder{Class: BlockClaim, Path: layer.Noun,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/bcache/set -> %s", n, set), Remedy: "take it apart: " + layer.Remedy})
	}
	return found, nil
}

// Name returns the kernel's name of a block device, such as dm-0.
func (s Sysfs) Name(n mounts.DevNum) (string, error) {
	link, err := os.Readlink(filepath.Join(string(s), "dev/block", n.String()))
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
	lower, err := Stacked(filepath.Join(s.dir(name), "slaves"))
	if err != nil {
		return stack.Layer{}, err
	}
	d := stack.Device{Name: name, Label: s.Read(name, "dm/name"), UUID: s.Read(name, "dm/uuid"), Level: s.Read(name, "md/level")}
	if len(lower) > 0 {
		d.Below = "/dev/" + lower[0]
	}
	return d.Layer(), nil
}

func (s Sysfs) dir(name string) string {
	return filepath.Join(string(s), "block", strings.ReplaceAll(name, "/", "!"))
}

// Read returns an attribute of a block device, "" where it has none of that name.
func (s Sysfs) Read(name, file string) string {
	text, err := os.ReadFile(filepath.Join(s.dir(name), file))
	if err != nil {
		return "" // only devices of that kind have the file
	}
	return strings.TrimSpace(string(text))
}
