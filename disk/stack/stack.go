// Package stack knows the kinds of block devices that stand on others, and the command that takes
// each apart. It reads nothing: the facts come from the caller.
package stack

import (
	"fmt"
	"regexp"
	"strings"
)

// Kind is a kind of stacked device.
type Kind string

// The kinds.
const (
	LVM             Kind = "lvm"
	Crypt           Kind = "dm-crypt"
	Multipath       Kind = "multipath"
	MappedPartition Kind = "mapped-partition" // a partition as a device-mapper device, by kpartx
	Stratis         Kind = "stratis"
	DeviceMapper    Kind = "device-mapper" // another device-mapper device
	MDRAID          Kind = "md"
	Bcache          Kind = "bcache"
	DRBD            Kind = "drbd"
	Other           Kind = "stacked"
)

// Device holds the facts of sysfs about a stacked device.
type Device struct {
	Name  string // the kernel's name, such as "dm-0", with a slash where sysfs has "!"
	Label string // dm/name; "" if it is no device-mapper device
	UUID  string // dm/uuid, which begins with the name of its user
	Level string // md/level
	Below string // the path of a device that it stands on
}

// Path returns the path by which a person knows the device.
func (d Device) Path() string {
	if d.Label != "" {
		return "/dev/mapper/" + d.Label
	}
	return "/dev/" + d.Name
}

// Layer describes a stacked device.
type Layer struct {
	Kind   Kind
	Noun   string // "encrypted volume home"
	Below  string // the part of the device beneath: "opened as the encrypted volume /dev/mapper/home (dm-0)"
	Remedy string // the command that takes it apart
}

// mapped are the kinds of device-mapper devices, by the beginning of the UUID.
// The words in braces are those of Device.fill.
var mapped = []struct {
	uuid  *regexp.Regexp
	layer Layer
}{
	{prefix("LVM-"), Layer{LVM, "LVM volume {label}", "physical volume of the active LVM volume group {group} (volume {volume}, {name})", "vgchange -an {group}"}},
	{prefix("CRYPT-VERITY-"), Layer{Crypt, "dm-verity device {label}", "part of the dm-verity device {device}", "veritysetup close {label}"}},
	{prefix("CRYPT-INTEGRITY-"), Layer{Crypt, "dm-integrity device {label}", "part of the dm-integrity device {device}", "integritysetup close {label}"}},
	{prefix("CRYPT-"), Layer{Crypt, "encrypted volume {label}", "opened as the encrypted volume {device}", "cryptsetup close {label}"}},
	{prefix("mpath-"), Layer{Multipath, "multipath device {label}", "path of the multipath device {device}", "multipath -f {label}"}},
	{partUUID, Layer{MappedPartition, "mapped partition {label}", "mapped as the partition {device}", "kpartx -d {below}"}},
	{prefix("DMRAID-"), Layer{DeviceMapper, "BIOS RAID {label}", "member of the BIOS RAID {device}", "dmraid -an {label}"}},
	{prefix("stratis-"), Layer{Stratis, "device {label} of a Stratis pool", "part of a Stratis pool ({device})", "stratis pool stop --name POOL, as stratis pool list names it"}},
}

var (
	otherMapped = Layer{DeviceMapper, "device-mapper device {label}", "part of the device-mapper device {device}", "dmsetup remove {label}"}
	other       = Layer{Other, "stacked device", "part of {path}", "stop {path} by the program that made it"}
)

// named are the kinds of other devices, by the beginning of the name.
var named = []struct {
	name  string
	layer Layer
}{
	{"md", Layer{MDRAID, "MD RAID", "member of the RAID {path} ({level})", "mdadm --stop {path}"}},
	{"bcache", Layer{Bcache, "bcache device", "part of the bcache device {path}", "echo 1 > /sys/block/{name}/bcache/stop"}},
	{"drbd", Layer{DRBD, "DRBD device", "backing device of {path}", "drbdadm down RESOURCE, as drbdadm status names it"}},
}

func prefix(text string) *regexp.Regexp { return regexp.MustCompile("^" + text) }

var partUUID = regexp.MustCompile(`^part(\d+)-`)

// Partition returns the number of the partition that a device-mapper device is, "" if it is none.
func Partition(uuid string) string {
	if part := partUUID.FindStringSubmatch(uuid); part != nil {
		return part[1]
	}
	return ""
}

// Layer returns the layer that a device is.
func (d Device) Layer() Layer {
	if d.Label == "" {
		for _, k := range named {
			if strings.HasPrefix(d.Name, k.name) {
				return d.fill(k.layer)
			}
		}
		return d.fill(other)
	}
	for _, k := range mapped {
		if k.uuid.MatchString(d.UUID) {
			return d.fill(k.layer)
		}
	}
	return d.fill(otherMapped)
}

// fill puts the facts of the device in place of the words in braces.
func (d Device) fill(l Layer) Layer {
	group, volume := splitLVM(d.Label)
	level := d.Level
	if level == "" {
		level = "unknown level"
	}
	facts := strings.NewReplacer("{label}", d.Label, "{name}", strings.ReplaceAll(d.Name, "/", "!"), "{path}", d.Path(),
		"{device}", fmt.Sprintf("%s (%s)", d.Path(), d.Name), "{group}", group, "{volume}", volume, "{level}", level, "{below}", d.Below)
	return Layer{l.Kind, facts.Replace(l.Noun), facts.Replace(l.Below), facts.Replace(l.Remedy)}
}

// CacheSet returns the layer of the set that a cache device of bcache belongs to. No device stands
// on it.
func CacheSet(id string) Layer {
	return Layer{Bcache, "bcache set " + id, "cache device of the bcache set " + id, "echo 1 > /sys/fs/bcache/" + id + "/stop"}
}

// splitLVM undoes the naming of LVM: group and volume with a hyphen between, hyphens of their own
// doubled.
func splitLVM(label string) (group, volume string) {
	const hyphen = "\x00"
	group, volume, found := strings.Cut(strings.ReplaceAll(label, "--", hyphen), "-")
	if !found {
		return label, "?"
	}
	return strings.ReplaceAll(group, hyphen, "-"), strings.ReplaceAll(volume, hyphen, "-")
}
