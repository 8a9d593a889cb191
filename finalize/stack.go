package finalize

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// sysfs is the kernel's view of its block devices; a directory of a test's in tests.
type sysfs struct{ holders.Sysfs }

// beneath returns why a device is not all of its stack, in a sentence: it stands on other devices,
// which it keeps claimed. "" means that it stands on none.
func (s sysfs) beneath(n mounts.DevNum) (string, error) {
	name, lower, err := s.slaves(n)
	if err != nil || len(lower) == 0 {
		return "", err
	}
	layer, err := s.Layer(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/%s (%s) stays, and has /dev/%s claimed; to take it apart: %s", name, layer.Noun, strings.Join(lower, ", /dev/"), layer.Remedy), nil
}

// slaves returns the name of a device, and those of the devices that it stands on. A partition
// stands on those of its disk.
func (s sysfs) slaves(n mounts.DevNum) (name string, lower []string, err error) {
	if name, err = s.Name(n); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(string(s.Sysfs), "dev/block", n.String())
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", nil, fmt.Errorf("finding the disk of partition %s: %w", name, err)
		}
		dir = filepath.Dir(disk)
		name = filepath.Base(dir)
	}
	lower, err = holders.Stacked(filepath.Join(dir, "slaves"))
	return name, lower, err
}

// attachment returns the file that a loop device stays attached to when its last user has gone, ""
// if it is no loop device or detaches by itself.
func (s sysfs) attachment(n mounts.DevNum) string {
	name, err := s.Name(n)
	if err != nil || s.Read(name, "loop/autoclear") != "0" {
		return ""
	}
	return s.Read(name, "loop/backing_file")
}
