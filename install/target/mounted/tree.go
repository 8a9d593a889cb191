package mounted

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/fsinfo"
	"installer/disk/mounts"
	"installer/finalize"
)

// Role is the purpose of a file system.
type Role string

// The roles. Each is also the name of the file system in messages.
const (
	Root Role = "root"
	Boot Role = "boot"
	ESP  Role = "EFI system partition"
)

// Filesystem is one file system of a target.
type Filesystem struct {
	Role   Role
	Mount  mounts.Mount
	Device string // a node of the block device that carries it
	Number mounts.DevNum
	Super  fsinfo.Superblock // zero of an EFI system partition
}

// String returns the mount point, the type and the device.
func (f Filesystem) String() string {
	return fmt.Sprintf("%s: %s on %s", f.Mount.Point, f.Mount.FSType, f.Device)
}

// Tree is a target: the mount on a directory, and the mounts below it.
type Tree struct {
	Root   Filesystem
	Boot   *Filesystem // nil where the directory boot is the root's
	ESP    *Filesystem // nil where none is mounted
	Others []mounts.Mount
	// Running says that the running system has its root on the same file system.
	Running bool
}

// Filesystems lists them, the root first.
func (t *Tree) Filesystems() []Filesystem {
	list := []Filesystem{t.Root}
	for _, f := range []*Filesystem{t.Boot, t.ESP} {
		if f != nil {
			list = append(list, *f)
		}
	}
	return list
}

// Entries is the file system that has the boot entries.
func (t *Tree) Entries() Filesystem {
	if t.Boot != nil {
		return *t.Boot
	}
	return t.Root
}

// Find returns the mounts on root, a path without symlinks, and below it. It refuses file systems
// that no system can be installed on with a [*disk.RefusedError].
func Find(root string) (*Tree, error) {
	list, top, err := mountOf(root)
	if err != nil {
		return nil, err
	}
	tree, err := mounts.LeafFirst(list, top.ID)
	if err != nil {
		return nil, err
	}
	t, err := classify(top, tree)
	if err != nil {
		return nil, err
	}
	if t.Running, err = isRunning(list, top); err != nil {
		return nil, err
	}
	return t, t.identify()
}

// mountOf lists the mounts, and finds the one that stands on root.
func mountOf(root string) ([]mounts.Mount, mounts.Mount, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, mounts.Mount{}, fmt.Errorf("looking at the target: %w", err)
	}
	if !info.IsDir() {
		return nil, mounts.Mount{}, refuse(root, "it is no directory: to-filesystem wants the mount point of the root file system, to-disk takes a disk")
	}
	list, err := mounts.OwnMounts()
	if err != nil {
		return nil, mounts.Mount{}, err
	}
	id, _, err := mounts.IDAt(root)
	if err != nil {
		return nil, mounts.Mount{}, err
	}
	top, ok := mounts.Find(list, id)
	switch {
	case !ok:
		return nil, top, fmt.Errorf("finding the mount at %s: mount %d is not in this namespace's mountinfo", root, id)
	case root == "/":
		return nil, top, refuse(root, "it is the root that this program itself runs from: mount the file system that is to be installed on, and name its mount point")
	case top.Point != root:
		return nil, top, refuse(root, "it is no mount point, but a directory of the file system on "+top.Point+": mount the file system that is to be installed on, and name its mount point")
	}
	return list, top, nil
}

// classify sorts the file systems of a target by their mount points, and refuses those on which no
// system can stand.
func classify(top mounts.Mount, tree []mounts.Mount) (*Tree, error) {
	t := &Tree{Root: Filesystem{Role: Root, Mount: top}}
	if err := t.Root.check(); err != nil {
		return nil, err
	}
	for _, m := range tree {
		if m.ID == top.ID || m.FSType == "autofs" { // the file system of an automount point is a mount of its own
			continue
		}
		switch strings.TrimPrefix(m.Point, top.Point) {
		case "/boot":
			t.Boot = &Filesystem{Role: Boot, Mount: m}
			if err := t.Boot.check(); err != nil {
				return nil, err
			}
		case "/boot/efi", "/efi":
			if t.ESP != nil {
				return nil, refuse(top.Point, fmt.Sprintf("two file systems are mounted for the EFI system partition, on %s and on %s: unmount one", t.ESP.Mount.Point, m.Point))
			}
			t.ESP = &Filesystem{Role: ESP, Mount: m}
			if err := t.ESP.check(); err != nil {
				return nil, err
			}
		default:
			t.Others = append(t.Others, m)
		}
	}
	return t, nil
}

// check refuses a file system that cannot have its role.
func (f *Filesystem) check() error {
	m := f.Mount
	_, err := disk.ParseFilesystem(m.FSType)
	switch {
	case f.Role == ESP && m.FSType != "vfat":
		return refuse(m.Point, "an EFI system partition is FAT, and this is "+m.FSType+": firmware would not read it")
	case f.Role == Boot && m.FSType == "vfat":
		return refuse(m.Point, "a boot file system that is FAT has no symbolic links, by which ostree switches between deployments: "+
			"make it ext4, xfs or btrfs, and mount the EFI system partition on "+m.Point+"/efi")
	case f.Role != ESP && err != nil:
		return refuse(m.Point, fmt.Sprintf("the %s file system must be xfs, ext4 or btrfs, and this is %s", f.Role, m.FSType))
	case m.Root != "/":
		return refuse(m.Point, fmt.Sprintf("it shows the directory %s of the %s file system, where neither boot loader nor initramfs would look: mount the whole file system", m.Root, m.FSType))
	case m.ReadOnlySuper() || slices.Contains(strings.Split(m.Options, ","), "ro"):
		return refuse(m.Point, "it is mounted read-only: mount -o remount,rw "+m.Point)
	}
	return nil
}

// isRunning reports whether this process, or the first of the system, has its root on the same file
// system.
func isRunning(list []mounts.Mount, m mounts.Mount) (bool, error) {
	f, err := os.Open("/proc/1/mountinfo")
	if err != nil {
		return false, fmt.Errorf("finding out which file system the system runs from: %w", err)
	}
	defer f.Close()
	first, err := mounts.Parse(f)
	if err != nil {
		return false, err
	}
	for _, other := range append(first, list...) {
		if other.Point == "/" && other.Dev == m.Dev {
			return true, nil
		}
	}
	return sameDevice("/", m.Point)
}

// sameDevice compares the device numbers of stat(2): in a chroot, mountinfo has no line for the
// root.
func sameDevice(a, b string) (bool, error) {
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Stat(a, &sa), unix.Stat(b, &sb)); err != nil {
		return false, fmt.Errorf("finding out which file system the system runs from: %w", err)
	}
	return sa.Dev == sb.Dev, nil
}

// identify reads the superblocks.
func (t *Tree) identify() (err error) {
	target, closeAll, err := finalize.Discover(t.Root.Mount.Point)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	for _, f := range []*Filesystem{&t.Root, t.Boot, t.ESP} {
		if f == nil {
			continue
		}
		if err := f.identify(target.Devices); err != nil {
			return fmt.Errorf("looking at the %s on %s: %w", f.Role, f.Mount.Point, err)
		}
	}
	return nil
}

func (f *Filesystem) identify(devices []finalize.Device) (err error) {
	number, err := blockNumber(f.Mount)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(devices, func(d finalize.Device) bool { return d.Major == number.Major && d.Minor == number.Minor })
	if i < 0 {
		return refuse(f.Mount.Point, "its "+f.Mount.FSType+" is stored on no block device")
	}
	f.Device, f.Number = devices[i].Path, number
	if f.Role != ESP {
		f.Super, err = fsinfo.ReadRoot(devices[i].File)
	}
	return err
}

func refuse(path, reason string) error { return &disk.RefusedError{Path: path, Reason: reason} }
