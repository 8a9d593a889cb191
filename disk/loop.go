package disk

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"installer/disk/block"

	"golang.org/x/sys/unix"
)

// Numbers of the loop driver (linux/loop.h, linux/miscdevice.h).
const (
	miscMajor       = 10
	loopCtrlMinor   = 237
	loopAllocations = 128 // how many free loop devices may be lost to others before giving up
)

// loopSet holds the loop devices over an open disk.
type loopSet struct {
	file     *os.File
	sector   int // logical sector size, in bytes
	readOnly bool
	host     host
	nodeDir  string // see [NodeDir]

	mu      sync.Mutex
	devices map[*Device]struct{} // attached and not yet detached
}

// attached returns the devices that are attached now.
func (s *loopSet) attached() []*Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.devices))
}

// Device is a loop device over one partition of a disk.
type Device struct {
	set  *loopSet
	part Partition
	name string // the kernel's
	file *os.File
	path string
	dev  block.Number
	// backing is the path of the disk in sysfs. It differs from our path in a container or after a
	// rename.
	backing string
	made    []string // nodes that we made and must remove
	detach  sync.Once
	err     error
}

// StillAttachedError means that a loop device outlived its detaching: another program has it open.
type StillAttachedError struct {
	Path    string // of the loop device
	Backing string // of the disk
	Holders string // who has it open
}

func (e *StillAttachedError) Error() string {
	return fmt.Sprintf("%s over %s is still attached after it was closed: open in %s", e.Path, e.Backing, e.Holders)
}

// Attach lays a loop device over a partition. It is configured in one step and clears itself when
// the last descriptor of it goes, so that a killed program leaves none; it is locked, so that udev
// leaves it alone. Detach it before the disk is closed.
func (d *Disk) Attach(p Partition) (*Device, error) {
	if err := d.within(p.Start, p.Size); err != nil {
		return nil, fmt.Errorf("attaching partition %q: %w", p.Name, err)
	}
	return d.loops.attach(p)
}

// AttachReadOnly lays a read-only loop device over a partition of a disk that is not claimed. Nodes
// that /dev lacks are made in nodeDir.
func AttachReadOnly(disk *os.File, sector int, p Partition, nodeDir string) (*Device, error) {
	s := &loopSet{file: disk, sector: sector, readOnly: true, host: liveHost(), nodeDir: nodeDir, devices: map[*Device]struct{}{}}
	return s.attach(p)
}

// attach is [Disk.Attach] of a partition that lies on the disk.
func (s *loopSet) attach(p Partition) (*Device, error) {
	ctl, cleanup, err := s.openControl()
	if err != nil {
		return nil, err
	}
	defer cleanup()
	v, err := s.configureFree(ctl, p)
	if err != nil {
		return nil, fmt.Errorf("attaching partition %q of %s: %w", p.Name, s.file.Name(), err)
	}
	s.mu.Lock()
	s.devices[v] = struct{}{}
	s.mu.Unlock()
	if err := v.check(); err != nil {
		return nil, errors.Join(fmt.Errorf("attaching partition %q of %s: %w", p.Name, s.file.Name(), err), v.Detach())
	}
	return v, nil
}

// openControl opens the loop driver's control device.
func (s *loopSet) openControl() (*os.File, func(), error) {
	path, made, err := s.deviceNode("loop-control", unix.S_IFCHR, block.Number{Major: miscMajor, Minor: loopCtrlMinor})
	if err != nil {
		return nil, nil, fmt.Errorf("finding the loop driver: %w", err)
	}
	ctl, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		removeAll(made)
		return nil, nil, fmt.Errorf("opening the loop driver: %w (load it with modprobe loop; a container must be privileged)", err)
	}
	return ctl, func() { ctl.Close(); removeAll(made) }, nil
}

// configureFree takes a free loop device. Asking for one and configuring it are two steps, so
// another program may win it in between: then the next one is tried. That is a race for a name, not
// a wait.
func (s *loopSet) configureFree(ctl *os.File, p Partition) (*Device, error) {
	last := -1
	for range loopAllocations {
		number, err := nextLoop(ctl, last)
		if err != nil {
			return nil, err
		}
		v, err := s.configure(number, p)
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		last = number
	}
	return nil, fmt.Errorf("%d loop devices in a row were taken by other programs", loopAllocations)
}

// nextLoop returns a free loop device other than the last one tried.
func nextLoop(ctl *os.File, last int) (int, error) {
	number, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return 0, fmt.Errorf("asking for a free loop device: %w", err)
	}
	if number > last {
		return number, nil
	}
	// The one just tried looks free but is locked: go on behind it.
	err = unix.IoctlSetInt(int(ctl.Fd()), unix.LOOP_CTL_ADD, last+1)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("adding loop device %d: %w", last+1, err)
	}
	return last + 1, nil
}

// configure makes one loop device ours, or leaves it as it was.
func (s *loopSet) configure(number int, p Partition) (*Device, error) {
	name := fmt.Sprintf("loop%d", number)
	text, err := block.Attribute(filepath.Join(s.host.Sys, "block", name), "dev")
	if err != nil {
		return nil, fmt.Errorf("finding %s in sysfs: %w", name, err)
	}
	v := &Device{set: s, part: p, name: name}
	if v.dev, err = block.ParseNumber(text); err != nil {
		return nil, err
	}
	if v.path, v.made, err = s.deviceNode(name, unix.S_IFBLK, v.dev); err != nil {
		return nil, err
	}
	if err := v.open(); err != nil {
		removeAll(v.made)
		return nil, err
	}
	return v, nil
}

// open opens, locks and configures the loop device. The lock comes first, so that udev never looks
// at the device while it is ours. A device that turns out to be another's is open under ForkLock
// only, so that no look of stillOursAlone finds it.
func (v *Device) open() error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	mode := os.O_RDWR
	if v.set.readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(v.path, mode, 0)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("locking %s: %w", v.path, err)
	}
	if err := v.set.bind(f, v.part); err != nil {
		f.Close()
		return fmt.Errorf("configuring %s: %w", v.path, err)
	}
	v.file = f
	return nil
}

// bind ties a loop device to a partition's range in one call. Direct I/O keeps written content from
// being cached twice; where it is refused the loop device works without.
func (s *loopSet) bind(loop *os.File, p Partition) error {
	config := unix.LoopConfig{Fd: uint32(s.file.Fd()), Size: uint32(s.sector)}
	config.Info.Offset, config.Info.Sizelimit = uint64(p.Start), uint64(p.Size)
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	if s.readOnly {
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_READ_ONLY
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], filepath.Base(s.file.Name())+":"+p.Name)
	err := unix.IoctlLoopConfigure(int(loop.Fd()), &config)
	if errors.Is(err, unix.EINVAL) {
		config.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("%w (LOOP_CONFIGURE needs Linux 5.8)", err)
	}
	return err
}

// check compares the loop device in sysfs with the partition and the access asked for, and records
// the path of its backing there.
func (v *Device) check() error {
	type attribute struct {
		file  string
		value int64
	}
	sysdir := v.sysfs()
	var err error
	if v.backing, err = block.Attribute(sysdir, "loop/backing_file"); err != nil {
		return fmt.Errorf("checking %s: %w", v.path, err)
	}
	last := attribute{"size", v.part.Size / sysfsSector}
	if v.set.readOnly { // a disk that was cut short has less
		last = attribute{"ro", 1}
	}
	for _, want := range []attribute{{"loop/offset", v.part.Start}, {"loop/sizelimit", v.part.Size}, last} {
		got, err := block.NumericAttribute(sysdir, want.file)
		if err != nil {
			return fmt.Errorf("checking %s: %w", v.path, err)
		}
		if got != want.value {
			return fmt.Errorf("checking %s: %s is %d, not %d", v.path, want.file, got, want.value)
		}
	}
	return nil
}

func (v *Device) sysfs() string {
	return filepath.Join(v.set.host.Sys, "dev/block", v.dev.String())
}

// Path returns a node of the device, for mkfs and mount: in /dev, or in the private directory.
func (v *Device) Path() string { return v.path }

// Number returns the device number.
func (v *Device) Number() (major, minor uint32) { return v.dev.Major, v.dev.Minor }

// Name returns the kernel's name of the device, as in messages and /sys/block.
func (v *Device) Name() string { return v.name }

// File returns the open loop device. It must not be closed by others than [Device.Detach].
func (v *Device) File() *os.File { return v.file }

// Partition returns the partition that the device lies over.
func (v *Device) Partition() Partition { return v.part }

// Detach flushes the device, closes it, and proves in sysfs that it is gone. Its error is a
// [*StillAttachedError] where another program keeps it open. Later calls return the first one's
// result.
func (v *Device) Detach() error {
	v.detach.Do(func() { v.err = v.release() })
	return v.err
}

func (v *Device) release() error {
	var errs []error
	if err := v.file.Sync(); err != nil {
		errs = append(errs, fmt.Errorf("flushing %s: %w", v.path, err))
	}
	// A child between fork and exec has a copy of the descriptor: none is being made now.
	syscall.ForkLock.RLock()
	err := v.file.Close()
	syscall.ForkLock.RUnlock()
	if err != nil {
		errs = append(errs, fmt.Errorf("closing %s: %w", v.path, err))
	}
	if err := v.gone(); err != nil {
		errs = append(errs, err)
	}
	removeAll(v.made)
	v.set.mu.Lock()
	delete(v.set.devices, v)
	v.set.mu.Unlock()
	return errors.Join(errs...)
}

// searches is how many searches for openers a loop device outlives before it counts as held.
const searches = 4

// gone proves that the loop device no longer lies over the partition: it is free, or another's by
// now. A program in search of a free loop device, and one that probes all devices, as blkid does,
// opens it for a moment, and the kernel clears the device when that one closes. So each search for
// its openers is followed by another look, which alone decides.
func (v *Device) gone() error {
	attached, err := v.stillOurs()
	holders := ""
	for n := 0; attached && err == nil && n < searches; n++ {
		holders = v.set.host.openers(v.dev)
		attached, err = v.stillOursAlone()
	}
	if err != nil || !attached {
		return err
	}
	return &StillAttachedError{Path: v.path, Backing: v.set.file.Name(), Holders: holders}
}

// stillOursAlone is stillOurs while this process opens no loop device and starts no child.
func (v *Device) stillOursAlone() (bool, error) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	return v.stillOurs()
}

// stillOurs reports whether the loop device lies over the partition now.
func (v *Device) stillOurs() (bool, error) {
	var offset int64
	backing, err := block.Attribute(v.sysfs(), "loop/backing_file")
	if err == nil {
		offset, err = block.NumericAttribute(v.sysfs(), "loop/offset")
	}
	if block.Vanished(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("proving that %s is gone: %w", v.path, err)
	}
	return strings.TrimSuffix(backing, " (deleted)") == v.backing && offset == v.part.Start, nil
}
