package finalize

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// sysfs is where the kernel shows its block devices; a directory of a test's in tests.
type sysfs string

// beneath returns why a device is not all of its stack, in a sentence: it stands on other devices, which it
// keeps claimed. "" means that it stands on none.
func (s sysfs) beneath(n mounts.DevNum) (string, error) {
	name, lower, err := s.slaves(n)
	if err != nil || len(lower) == 0 {
		return "", err
	}
	kind, remedy := s.takenApart(name)
	return fmt.Sprintf("/dev/%s (%s) stays, and has /dev/%s claimed; to take it apart: %s", name, kind, strings.Join(lower, ", /dev/"), remedy), nil
}

// slaves returns the name of a device, and those of the devices that it stands on. A partition stands on
// those of its disk.
func (s sysfs) slaves(n mounts.DevNum) (name string, lower []string, err error) {
	if name, err = s.name(n); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(string(s), "dev/block", n.String())
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", nil, fmt.Errorf("finding the disk of partition %s: %w", name, err)
		}
		dir = filepath.Dir(disk)
		name = filepath.Base(dir)
	}
	lower, err = list(filepath.Join(dir, "slaves"))
	return name, lower, err
}

// claimers returns the devices that stand on a device, as holders of it.
func (s sysfs) claimers(n mounts.DevNum) ([]holders.Holder, error) {
	upper, err := list(filepath.Join(string(s), "dev/block", n.String(), "holders"))
	if err != nil {
		return nil, err
	}
	var found []holders.Holder
	for _, name := range upper {
		kind, remedy := s.takenApart(name)
		found = append(found, holders.Holder{Class: holders.BlockClaim, Path: "/dev/" + name,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/holders/%s (%s)", n, name, kind), Remedy: "take it apart: " + remedy})
	}
	return found, nil
}

func (s sysfs) name(n mounts.DevNum) (string, error) {
	link, err := os.Readlink(filepath.Join(string(s), "dev/block", n.String()))
	if err != nil {
		return "", fmt.Errorf("finding the name of device %s (is /sys mounted?): %w", n, err)
	}
	return filepath.Base(link), nil
}

// list returns the device names in a directory of a device, which not every device has.
func list(dir string) ([]string, error) {
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

// takenApart returns the kind of a stacked device, and the command that takes it apart.
func (s sysfs) takenApart(name string) (kind, remedy string) {
	label := s.read(name, "dm/name")
	switch uuid := s.read(name, "dm/uuid"); {
	case strings.HasPrefix(uuid, "LVM-"):
		return "LVM volume " + label, "vgchange -an " + volumeGroup(label)
	case strings.HasPrefix(uuid, "CRYPT-"):
		return "encrypted volume " + label, "cryptsetup close " + label
	case strings.HasPrefix(uuid, "mpath-"):
		return "multipath device " + label, "multipath -f " + label
	case label != "":
		return "device-mapper device " + label, "dmsetup remove " + label
	case strings.HasPrefix(name, "md"):
		return "MD RAID", "mdadm --stop /dev/" + name
	case strings.HasPrefix(name, "bcache"):
		return "bcache", "echo 1 >/sys/block/" + name + "/bcache/stop"
	case strings.HasPrefix(name, "drbd"):
		return "DRBD", "drbdadm secondary, then drbdadm down, for the resource of /dev/" + name
	}
	return "stacked device", "stop /dev/" + name + " by the program that made it"
}

// volumeGroup returns the group in the name of a logical volume: "group-volume", with each hyphen of
// either name doubled.
func volumeGroup(label string) string {
	const hyphen = "\x00"
	group, _, _ := strings.Cut(strings.ReplaceAll(label, "--", hyphen), "-")
	return strings.ReplaceAll(group, hyphen, "-")
}

func (s sysfs) read(name, file string) string {
	text, err := os.ReadFile(filepath.Join(string(s), "block", strings.ReplaceAll(name, "/", "!"), file))
	if err != nil {
		return "" // only devices of that kind have the file
	}
	return strings.TrimSpace(string(text))
}

// attachment returns the file that a loop device stays attached to when its last user has gone, "" if
// it is no loop device or detaches by itself.
func (s sysfs) attachment(n mounts.DevNum) string {
	name, err := s.name(n)
	if err != nil || s.read(name, "loop/autoclear") != "0" {
		return ""
	}
	return s.read(name, "loop/backing_file")
}
