package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// Numbers of the loop driver's control device (linux/miscdevice.h), and how many free loop devices
// may be lost to other programs before giving up.
const (
	loopControlMajor = 10
	loopControlMinor = 237
	loopAttempts     = 128
)

// loop is a read-only loop device over a volume. The kernel detaches it when its last user is gone.
type loop struct {
	file    *os.File
	path    string
	sysfs   string
	backing string // as sysfs names it
	offset  int64
}

// attachReadOnly lays a loop device over a volume. Device nodes that /dev lacks are made in nodes.
func attachReadOnly(v Volume, nodes string) (*loop, error) {
	fail := func(err error) (*loop, error) {
		return nil, fmt.Errorf("laying a read-only loop device over the partition at byte %d: %w", v.Start, err)
	}
	path, err := deviceNode("loop-control", nodes, unix.S_IFCHR, unix.Mkdev(loopControlMajor, loopControlMinor))
	if err != nil {
		return fail(err)
	}
	control, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fail(fmt.Errorf("%w (load the driver with modprobe loop; a container must be privileged)", err))
	}
	defer control.Close()
	for range loopAttempts {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fail(fmt.Errorf("asking for a free loop device: %w", err))
		}
		l, err := configureLoop(number, v, nodes)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) { // EBUSY: another program was quicker, and the next one is asked for
			return fail(err)
		}
	}
	return fail(fmt.Errorf("%d loop devices in a row were taken by other programs", loopAttempts))
}

func configureLoop(number int, v Volume, nodes string) (*loop, error) {
	name := fmt.Sprintf("loop%d", number)
	l := &loop{sysfs: filepath.Join("/sys/block", name), offset: v.Start}
	device, err := l.number()
	if err != nil {
		return nil, err
	}
	if l.path, err = deviceNode(name, nodes, unix.S_IFBLK, device); err != nil {
		return nil, err
	}
	if l.file, err = os.OpenFile(l.path, os.O_RDONLY, 0); err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(v.Disk.Fd()), Size: uint32(v.SectorSize)}
	config.Info.Offset, config.Info.Sizelimit = uint64(v.Start), uint64(v.Size)
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_READ_ONLY
	if err := unix.IoctlLoopConfigure(int(l.file.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("configuring %s: %w", l.path, err), l.file.Close())
	}
	if err := l.check(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// check makes sure that the device is the one asked for, and above all that it is read-only.
func (l *loop) check() (err error) {
	if l.backing, err = l.attribute("loop/backing_file"); err != nil {
		return fmt.Errorf("checking %s: %w", l.path, err)
	}
	readOnly, err := l.attribute("ro")
	if err == nil && readOnly != "1" {
		err = errors.New("it is not read-only")
	}
	offset, offsetErr := l.attribute("loop/offset")
	if err = errors.Join(err, offsetErr); err == nil && offset != strconv.FormatInt(l.offset, 10) {
		err = fmt.Errorf("it begins at %s instead of %d", offset, l.offset)
	}
	if err != nil {
		return fmt.Errorf("checking %s: %w", l.path, err)
	}
	return nil
}

// detach closes the device and makes sure that it is gone.
func (l *loop) detach() error {
	// A child between fork and exec has a copy of the descriptor: none is being made now.
	syscall.ForkLock.RLock()
	err := l.file.Close()
	syscall.ForkLock.RUnlock()
	if err != nil {
		return fmt.Errorf("closing %s: %w", l.path, err)
	}
	if !l.attached() {
		return nil
	}
	// Who holds it is looked up before the second look, which alone decides: a program in search of
	// a free loop device opens those of others for a moment.
	who := l.holders()
	if !l.attached() {
		return nil
	}
	return fmt.Errorf("%s is still attached after it was closed: %s", l.path, who)
}

// attached reports whether the device lies over the volume now. It may be gone, or another
// program's by now.
func (l *loop) attached() bool {
	backing, err := l.attribute("loop/backing_file")
	if err != nil || strings.TrimSuffix(backing, " (deleted)") != strings.TrimSuffix(l.backing, " (deleted)") {
		return false
	}
	offset, err := l.attribute("loop/offset")
	return err == nil && offset == strconv.FormatInt(l.offset, 10)
}

// holders names who has the device open or mounted, for a message.
func (l *loop) holders() string {
	number, err := l.number()
	if err != nil {
		return err.Error()
	}
	device := mounts.DevNum{Major: unix.Major(number), Minor: unix.Minor(number)}
	report, err := holders.Scan(context.Background(), holders.Target{Devices: []mounts.DevNum{device}, Blocks: []mounts.DevNum{device}})
	if err != nil {
		return err.Error()
	}
	if len(report.Holders) == 0 {
		return "no holder was found in any process or mount namespace"
	}
	names := make([]string, len(report.Holders))
	for n, h := range report.Holders {
		names[n] = h.String()
	}
	return "held by " + strings.Join(names, "; ")
}

func (l *loop) attribute(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(l.sysfs, name))
	return strings.TrimSpace(string(b)), err
}

// number reads the device number from sysfs.
func (l *loop) number() (uint64, error) {
	text, err := l.attribute("dev")
	if err != nil {
		return 0, fmt.Errorf("finding the loop device: %w", err)
	}
	major, minor, _ := strings.Cut(text, ":")
	a, errA := strconv.ParseUint(major, 10, 32)
	b, errB := strconv.ParseUint(minor, 10, 32)
	if err := errors.Join(errA, errB); err != nil {
		return 0, fmt.Errorf("finding the loop device: device number %q: %w", text, err)
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}

// deviceNode gives a path that leads to a device: in /dev, as nearly always, or made in nodes.
func deviceNode(name, nodes string, kind uint32, number uint64) (string, error) {
	var st unix.Stat_t
	path := filepath.Join("/dev", name)
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && st.Rdev == number {
		return path, nil
	}
	path = filepath.Join(nodes, name)
	if err := unix.Mknod(path, kind|0o600, int(number)); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("making the device node %s: %w", path, err)
	}
	return path, nil
}
