package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// stacked finds the devices on top of the subject, those on top of these, and the uses of each:
// first the mounts and swap spaces, which must go first, then the layers from the top down.
func (h host) stacked(s subject) ([]Use, error) {
	var uses []Use
	visited := map[string]bool{}
	for _, n := range s.nodes {
		found, err := h.above(n, visited)
		if err != nil {
			return nil, err
		}
		uses = append(uses, found...)
	}
	return oncePerRemedy(uses), nil
}

// above is stacked for one device.
func (h host) above(n node, visited map[string]bool) ([]Use, error) {
	entries, err := os.ReadDir(filepath.Join(n.dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var uses []Use
	for _, e := range entries {
		dir, err := filepath.EvalSymlinks(filepath.Join(n.dir, "holders", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken apart meanwhile
		}
		if err != nil {
			return nil, err
		}
		top, err := h.nodeAt(dir)
		if err != nil {
			return nil, err
		}
		if !visited[top.name] {
			visited[top.name] = true
			found, err := h.usesOf(top, visited)
			if err != nil {
				return nil, err
			}
			uses = append(uses, found...)
		}
		uses = append(uses, h.layer(n, top))
	}
	if set, err := os.Readlink(filepath.Join(n.dir, "bcache/set")); err == nil {
		id := filepath.Base(set)
		uses = append(uses, Use{Kind: Bcache, What: n.path(), Why: "cache device of the bcache set " + id,
			Remedy: "echo 1 > /sys/fs/bcache/" + id + "/stop"})
	}
	return uses, nil
}

// usesOf lists the uses of a device that is stacked on the subject.
func (h host) usesOf(top node, visited map[string]bool) ([]Use, error) {
	parts, err := h.partitions(top)
	if err != nil {
		return nil, err
	}
	s := subject{path: top.path(), nodes: append([]node{top}, parts...)}
	var uses []Use
	for _, look := range []func(subject) ([]Use, error){h.mounts, h.btrfsMembers, h.swaps, h.loops} {
		found, err := look(s)
		if err != nil {
			return nil, err
		}
		uses = append(uses, found...)
	}
	for _, n := range s.nodes {
		found, err := h.above(n, visited)
		if err != nil {
			return nil, err
		}
		uses = append(uses, found...)
	}
	return uses, nil
}

// layer describes the use of a device by one that is stacked on it.
func (h host) layer(below, top node) Use {
	u := Use{Kind: Stacked, What: below.path(), Why: "part of " + top.path(), Remedy: "take " + top.path() + " apart"}
	switch {
	case strings.HasPrefix(top.name, "md"):
		level, err := readLine(top.dir, "md/level")
		if err != nil {
			level = "unknown level"
		}
		u.Kind, u.Why, u.Remedy = MDRAID, fmt.Sprintf("member of the RAID %s (%s)", top.path(), level), "mdadm --stop "+top.path()
	case strings.HasPrefix(top.name, "bcache"):
		u.Kind, u.Why, u.Remedy = Bcache, "part of the bcache device "+top.path(), "echo 1 > /sys/block/"+top.name+"/bcache/stop"
	case strings.HasPrefix(top.name, "drbd"):
		u.Kind, u.Why, u.Remedy = DRBD, "backing device of "+top.path(), "drbdadm down RESOURCE, as drbdadm status names it"
	case strings.HasPrefix(top.name, "dm-"):
		u.mapped(top)
	}
	return u
}

// partUUID begins the device-mapper UUID of a partition that kpartx has mapped.
var partUUID = regexp.MustCompile(`^part(\d+)-`)

// mapped describes a device-mapper device by the prefix that each of its users gives to the UUID.
func (u *Use) mapped(top node) {
	name, id := top.mapped, top.mapID
	dev := fmt.Sprintf("%s (%s)", top.path(), top.name)
	u.Kind, u.Why, u.Remedy = DeviceMapper, "part of the device-mapper device "+dev, "dmsetup remove "+name
	switch {
	case strings.HasPrefix(id, "LVM-"):
		group, volume := splitLVM(name)
		u.Kind, u.Why = LVM, fmt.Sprintf("physical volume of the active LVM volume group %s (volume %s, %s)", group, volume, top.name)
		u.Remedy = "vgchange -an " + group
	case strings.HasPrefix(id, "CRYPT-VERITY-"):
		u.Kind, u.Why, u.Remedy = Crypt, "part of the dm-verity device "+dev, "veritysetup close "+name
	case strings.HasPrefix(id, "CRYPT-INTEGRITY-"):
		u.Kind, u.Why, u.Remedy = Crypt, "part of the dm-integrity device "+dev, "integritysetup close "+name
	case strings.HasPrefix(id, "CRYPT-"):
		u.Kind, u.Why, u.Remedy = Crypt, "opened as the encrypted volume "+dev, "cryptsetup close "+name
	case strings.HasPrefix(id, "mpath-"):
		u.Kind, u.Why = Multipath, "path of the multipath device "+dev
		u.Remedy = "multipath -f " + name + "; or install to " + top.path()
	case partUUID.MatchString(id):
		u.Kind, u.Why, u.Remedy = MappedPartition, "mapped as the partition "+dev, "kpartx -d "+u.What
	case strings.HasPrefix(id, "stratis-"):
		u.Kind, u.Why, u.Remedy = Stratis, "part of a Stratis pool ("+dev+")", "stratis pool stop --name POOL, as stratis pool list names it"
	}
}

// splitLVM undoes the naming of LVM: group and volume with a hyphen between, hyphens of their own
// doubled.
func splitLVM(name string) (group, volume string) {
	parts := strings.SplitN(strings.ReplaceAll(name, "--", "\x00"), "-", 2)
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "\x00", "-")
	}
	if len(parts) < 2 {
		return name, "?"
	}
	return parts[0], parts[1]
}

// oncePerRemedy drops layers of which one with the same remedy is named: the volumes of an LVM
// group go together.
func oncePerRemedy(uses []Use) []Use {
	seen := map[string]bool{}
	var kept []Use
	for _, u := range uses {
		key := u.Remedy
		if u.Kind == Mounted || u.Kind == Swap || u.Kind == BtrfsMember {
			key = u.String()
		}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, u)
		}
	}
	return kept
}
