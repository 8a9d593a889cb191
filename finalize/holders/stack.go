package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/finalize/mounts"
)

// Sysfs is the directory in which the kernel shows its block devices: "/sys" but in tests.
type Sysfs string

// Claimers returns the devices that stand on a device, as holders of it.
func (s Sysfs) Claimers(n mounts.DevNum) ([]Holder, error) {
	upper, err := Stacked(filepath.Join(string(s), "dev/block", n.String(), "holders"))
	if err != nil {
		return nil, err
	}
	var found []Holder
	for _, name := range upper {
		kind, remedy := s.TakenApart(name)
		found = append(found, Holder{Class: BlockClaim, Path: "/dev/" + name,
			Evidence: fmt.Sprintf("/sys/dev/block/%s/holders/%s (%s)", n, name, kind), Remedy: "take it apart: " + remedy})
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

// TakenApart returns the kind of a stacked device, and the command that takes it apart.
func (s Sysfs) TakenApart(name string) (kind, remedy string) {
	label := s.Read(name, "dm/name")
	switch uuid := s.Read(name, "dm/uuid"); {
	case strings.HasPrefix(uuid, "LVM-"):
		return "LVM volume " + label, "vgchange -an " + volumeGroup(label)
	case strings.HasPrefix(uuid, "CRYPT-VERITY-"):
		return "dm-verity device " + label, "veritysetup close " + label
	case strings.HasPrefix(uuid, "CRYPT-INTEGRITY-"):
		return "dm-integrity device " + label, "integritysetup close " + label
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

// volumeGroup returns the group in the name of a logical volume: "group-volume", with each hyphen
// of either name doubled.
func volumeGroup(label string) string {
	const hyphen = "\x00"
	group, _, _ := strings.Cut(strings.ReplaceAll(label, "--", hyphen), "-")
	return strings.ReplaceAll(group, hyphen, "-")
}

// Read returns an attribute of a block device, "" where it has none of that name.
func (s Sysfs) Read(name, file string) string {
	text, err := os.ReadFile(filepath.Join(string(s), "block", strings.ReplaceAll(name, "/", "!"), file))
	if err != nil {
		return "" // only devices of that kind have the file
	}
	return strings.TrimSpace(string(text))
}
