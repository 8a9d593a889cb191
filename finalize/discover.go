package finalize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"installer/finalize/holders"
	"installer/finalize/mounts"

	"golang.org/x/sys/unix"
)

// Discover returns the target that stands on path, somebody else's mount, with
// the devices of every file system in the tree. path must be a mount point, with
// no symlink in it. The caller calls closeAll when the release has ended.
func Discover(path string) (t Target, closeAll func() error, err error) {
	root, err := mounts.At(path)
	if err != nil {
		return Target{}, nil, err
	}
	if root.Point == "/" {
		return Target{}, nil, errors.New("finding the target: / is the root that this process itself runs from; " +
			"name the mount point of another file system")
	}
	list, err := mounts.OwnMounts()
	if err != nil {
		return Target{}, nil, err
	}
	tree, err := mounts.LeafFirst(list, root.ID)
	if err != nil {
		return Target{}, nil, err
	}
	t.Mountpoint = path
	closeAll = func() error {
		var errs []error
		for _, d := range t.Devices {
			errs = append(errs, d.File.Close())
		}
		return errors.Join(errs...)
	}
	release := Release{Tree: tree}
	for _, m := range release.filesystems() {
		d, err := openDevice(m)
		if err != nil {
			return Target{}, nil, errors.Join(err, closeAll())
		}
		t.Devices = append(t.Devices, d)
	}
	return t, closeAll, nil
}

// openDevice opens the device of a mount by the kernel's name of it, or by the
// mount's source: whichever node has the right number.
func openDevice(m mounts.Mount) (Device, error) {
	number, err := holders.BlockNumber(m)
	if err != nil {
		return Device{}, err
	}
	link, err := os.Readlink("/sys/dev/block/" + number.String())
	if err != nil {
		return Device{}, fmt.Errorf("finding the device %s of %s (is /sys mounted?): %w", number, m.Point, err)
	}
	for _, path := range []string{"/dev/" + filepath.Base(link), m.Source} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Major(st.Rdev) == number.Major && unix.Minor(st.Rdev) == number.Minor {
			return Device{Path: path, Major: number.Major, Minor: number.Minor, FSType: m.FSType, File: f}, nil
		}
		f.Close()
	}
	return Device{}, fmt.Errorf("finding the device %s of %s: neither /dev/%s nor %s is a node of it that can be read "+
		"(in a container, give it the host's /dev: -v /dev:/dev)", number, m.Point, filepath.Base(link), m.Source)
}
