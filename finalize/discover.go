package finalize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// Discover returns the target that is mounted on path by somebody else, with the devices of the file
// systems of the tree, as far as they can be opened. path must be a mount point, with no symlink in
// it. The caller calls closeAll when the release has ended.
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
	t.Mountpoint, t.missing = path, map[mounts.DevNum]error{}
	seen := map[mounts.DevNum]bool{}
	for _, m := range tree {
		if seen[m.Dev] || kindOf(m) != stored {
			continue
		}
		seen[m.Dev] = true
		if t.missing[m.Dev] = t.open(m); t.missing[m.Dev] == nil {
			delete(t.missing, m.Dev)
		}
	}
	return t, t.close, nil
}

func (t *Target) close() error {
	var errs []error
	for _, d := range t.Devices {
		errs = append(errs, d.File.Close())
	}
	return errors.Join(errs...)
}

// open adds the devices of a mount's file system.
func (t *Target) open(m mounts.Mount) error {
	numbers, err := holders.BlockNumbers(m)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		d, err := openDevice(n, m)
		if err != nil {
			return err
		}
		t.Devices = append(t.Devices, d)
	}
	return nil
}

// errCovered says that another mount stands on the root of a mount.
var errCovered = errors.New("another mount covers it")

// openMount opens the root of a mount, which must be a directory or a regular file: to open anything
// else may wait for ever, or have an effect.
func openMount(m mounts.Mount) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("opening the root of the file system on %s: %w", m.Point, err)
	}
	place, err := os.OpenFile(m.Point, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fail(err)
	}
	defer place.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(place.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		return fail(&os.PathError{Op: "statx", Path: m.Point, Err: err})
	}
	if st.Mask&unix.STATX_MNT_ID != 0 && int(st.Mnt_id) != m.ID {
		return fail(errCovered)
	}
	if format := st.Mode & unix.S_IFMT; format != unix.S_IFDIR && format != unix.S_IFREG {
		return fail(errors.New("it is neither a directory nor a regular file"))
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", place.Fd()))
}

// openDevice opens a block device by the kernel's name of it, by the mount's source, or by a node
// that it makes where nobody sees it.
func openDevice(number mounts.DevNum, m mounts.Mount) (Device, error) {
	link, err := os.Readlink("/sys/dev/block/" + number.String())
	if err != nil {
		return Device{}, fmt.Errorf("finding the device %s of %s (is /sys mounted?): %w", number, m.Point, err)
	}
	d := Device{Path: "/dev/" + strings.ReplaceAll(filepath.Base(link), "!", "/"), Major: number.Major, Minor: number.Minor, FSType: m.FSType}
	for _, path := range slices.Compact([]string{d.Path, m.Source}) {
		if d.File, err = openNode(path, number); err == nil {
			d.Path = path
			return d, nil
		}
	}
	if d.File, err = openPrivateNode(number); err != nil {
		return Device{}, fmt.Errorf("finding the device %s of %s: neither %s nor %s is a node of it that can be read "+
			"(in a container, give it the host's /dev: -v /dev:/dev): %w", number, m.Point, d.Path, m.Source, err)
	}
	d.Node = fmt.Sprintf("/proc/self/fd/%d", d.File.Fd())
	return d, nil
}

// openNode opens a device for reading if path is a node of it; nothing else is opened.
func openNode(path string, number mounts.DevNum) (*os.File, error) {
	place, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(place.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if n := (block.Split(st.Rdev)); st.Mode&unix.S_IFMT != unix.S_IFBLK || n != number {
		return nil, fmt.Errorf("%s is no node of device %s", path, number)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", place.Fd()))
}

// openPrivateNode opens a device by a node on a file system that is attached nowhere.
func openPrivateNode(number mounts.DevNum) (*os.File, error) {
	dir, err := newTmpfs()
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	if err := unix.Mknodat(dir, "node", unix.S_IFBLK|0o600, int(unix.Mkdev(number.Major, number.Minor))); err != nil {
		return nil, fmt.Errorf("making a node of the device: %w", err)
	}
	fd, err := unix.Openat(dir, "node", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a new node of the device: %w", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("device %s", number)), nil
}

// newTmpfs makes a tmpfs that is attached nowhere, and returns its root.
func newTmpfs() (int, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	dir, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	return dir, nil
}
