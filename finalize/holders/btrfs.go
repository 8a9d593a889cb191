package holders

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"installer/disk/block"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// btrfs is a btrfs whose superblock lives, as /sys/fs/btrfs shows it. mountinfo shows one of its
// devices at most, and a number that is no device's.
type btrfs struct {
	id      uuid.UUID
	names   []string // the kernel's names of its devices
	devices []mounts.DevNum
}

// listBtrfs returns every btrfs whose superblock lives, mounted or not.
func listBtrfs() ([]btrfs, error) {
	dirs, err := filepath.Glob("/sys/fs/btrfs/*/devices")
	if err != nil {
		return nil, fmt.Errorf("listing btrfs file systems: %w", err)
	}
	var list []btrfs
	for _, dir := range dirs {
		id, err := uuid.Parse(filepath.Base(filepath.Dir(dir)))
		if err != nil {
			continue // not a file system, but "features"
		}
		b := btrfs{id: id}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listing the devices of a btrfs: %w", err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(dir, e.Name(), "dev"))
			if err != nil {
				continue // removed since
			}
			if n, err := block.ParseNumber(string(text)); err == nil {
				b.names, b.devices = append(b.names, e.Name()), append(b.devices, n)
			}
		}
		list = append(list, b)
	}
	return list, nil
}

// owns reports whether statfs(2) returned st for a file of this btrfs, whatever its subvolume: the
// kernel makes f_fsid of the id of the file system and the number of the subvolume (btrfs_statfs in
// fs/btrfs/super.c).
func (b *btrfs) owns(st *unix.Statfs_t) bool {
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return false
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b.id[4*i:]) }
	// The upper half of a subvolume's number is 0 in practice; the lower half is any.
	return uint32(st.Fsid.Val[0]) == word(0)^word(2)
}

// btrfsIndex maps the number of a superblock, as mountinfo shows it, to the btrfs.
type btrfsIndex struct {
	list  []btrfs
	found map[mounts.DevNum]*btrfs
}

// indexBtrfs finds the btrfs of every mounted one. A mount of which no device can be found is in no
// entry.
func indexBtrfs(snapshot *mounts.Snapshot) (btrfsIndex, error) {
	x := btrfsIndex{found: map[mounts.DevNum]*btrfs{}}
	for ns, m := range snapshot.All {
		if m.FSType != "btrfs" || x.found[m.Dev] != nil {
			continue
		}
		if x.list == nil {
			var err error
			if x.list, err = listBtrfs(); err != nil {
				return x, err
			}
		}
		if b := x.match(m, ns.Own); b != nil {
			x.found[m.Dev] = b
		}
	}
	return x, nil
}

// match finds the btrfs of a mount: by the file system itself where it can be reached, else by the
// source of the mount, whose node may be missing here.
func (x *btrfsIndex) match(m mounts.Mount, own bool) *btrfs {
	if own {
		var st unix.Statfs_t
		if id, _, err := mounts.IDAt(m.Point); err == nil && id == m.ID && unix.Statfs(m.Point, &st) == nil {
			if i := slices.IndexFunc(x.list, func(b btrfs) bool { return b.owns(&st) }); i >= 0 {
				return &x.list[i]
			}
		}
	}
	number, known := block.NumberOf(m.Source)
	name := kernelNameOf(m.Source)
	for i, b := range x.list {
		if known && slices.Contains(b.devices, number) || !known && slices.Contains(b.names, name) {
			return &x.list[i]
		}
	}
	return nil
}

// kernelNameOf returns the kernel's name of a device whose node is missing: that of the node, or
// for a mapped device the one that has the node's name as its own.
func kernelNameOf(path string) string {
	mapped, ok := strings.CutPrefix(path, "/dev/mapper/")
	if !ok {
		return strings.ReplaceAll(strings.TrimPrefix(path, "/dev/"), "/", "!")
	}
	files, _ := filepath.Glob("/sys/block/dm-*/dm/name") // the pattern is correct
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == mapped {
			return strings.Split(file, "/")[3]
		}
	}
	return ""
}

// withDevice returns the btrfs that a block device is part of, nil if none is alive on it.
func (x *btrfsIndex) withDevice(n mounts.DevNum) *btrfs {
	for i, b := range x.list {
		if slices.Contains(b.devices, n) {
			return &x.list[i]
		}
	}
	return nil
}

// numbersOf returns the numbers under which mountinfo shows a btrfs.
func (x *btrfsIndex) numbersOf(b *btrfs) []mounts.DevNum {
	var list []mounts.DevNum
	for n, found := range x.found {
		if found == b {
			list = append(list, n)
		}
	}
	return list
}

func (x *btrfsIndex) isMounted(id string) bool {
	for _, b := range x.found {
		if b.id.String() == id {
			return true
		}
	}
	return false
}

// subvolumeSince is the first kernel whose statx(2) marks the files of a btrfs.
var subvolumeSince = [2]int{6, 10}

// STATX_SUBVOL of linux/stat.h.
const statxSubvolume = 0x8000

// ofBtrfs reports whether a file on a mount that is in no namespace belongs to a btrfs of the
// target. Such a file has the number of its subvolume, which only the file system itself knows.
// link returns a link of /proc that leads to the file. A file that is on no btrfs is not asked: its
// server may hang.
func (c *comparison) ofBtrfs(dev mounts.DevNum, link func() string) bool {
	if len(c.scan.btrfs) == 0 || dev.Major != 0 {
		return false
	}
	if answer, asked := c.subvolumes[dev]; asked {
		return answer
	}
	path := link()
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|statxSubvolume, &stx)
	if err != nil {
		return false
	}
	answer := false
	var st unix.Statfs_t
	if (stx.Mask&statxSubvolume != 0 || c.scan.oldKernel) && unix.Statfs(path, &st) == nil {
		answer = slices.ContainsFunc(c.scan.btrfs, func(b *btrfs) bool { return b.owns(&st) })
	}
	c.subvolumes[dev] = answer
	return answer
}

// kernelBefore reports whether the running kernel is older than a version.
func kernelBefore(version [2]int) bool {
	var name unix.Utsname
	var major, minor int
	if err := unix.Uname(&name); err != nil {
		return true
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); n != 2 {
		return true
	}
	return major < version[0] || major == version[0] && minor < version[1]
}
