package tests

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// LoopSnapshot fails the test at its end if a loop device on a file below the test's temporary
// directories is left. Other loop devices are other programs' business. The kernel may take some
// milliseconds for the last steps of a release that was already reported, and a program that looks
// at block devices, or copies a mount namespace, holds one for a moment: that is not a leak.
func LoopSnapshot(t testing.TB) {
	t.Helper()
	mine := filepath.Dir(t.TempDir())
	before, err := loopsBelow(mine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := loopsLeft(mine, before)
		if err != nil {
			t.Error(err)
		}
		for _, dev := range slices.Sorted(maps.Keys(left)) {
			t.Errorf("loop device %s is left on %s", dev, left[dev])
		}
	})
}

// loopsLeft lists the loop devices below dir that were not there before and stay for two seconds.
func loopsLeft(dir string, before map[string]string) (map[string]string, error) {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := loopsBelow(dir)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(now, func(dev, file string) bool { return before[dev] == file })
		if len(now) == 0 || time.Now().After(deadline) {
			return now, nil
		}
	}
}

// loopsBelow lists the loop devices with a backing file below dir: device name to file.
func loopsBelow(dir string) (map[string]string, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) {
			continue // detached since the listing
		}
		if err != nil {
			return nil, err
		}
		if file := strings.TrimSpace(string(b)); strings.HasPrefix(file, dir+"/") {
			found[filepath.Base(filepath.Dir(filepath.Dir(name)))] = file
		}
	}
	return found, nil
}

// attach attaches a range of a file to a loop device, which the kernel detaches when its last user
// is gone: the returned file is one, a mount is another. Mode is os.O_RDONLY or os.O_RDWR.
func attach(file string, mode int, start, size int64) (*os.File, error) {
	back, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("finding a free loop device: %w", err)
		}
		dev, err := configure(n, back, mode, start, size)
		if !errors.Is(err, unix.EBUSY) { // someone else took that one
			return dev, err
		}
	}
}

func configure(n int, back *os.File, mode int, start, size int64) (*os.File, error) {
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
	if err != nil {
		return nil, err
	}
	flags := uint32(unix.LO_FLAGS_AUTOCLEAR)
	if mode == os.O_RDONLY {
		flags |= unix.LO_FLAGS_READ_ONLY
	}
	config := unix.LoopConfig{
		Fd: uint32(back.Fd()),
		Info: unix.LoopInfo64{
			Offset: uint64(start), Sizelimit: uint64(size),
			Flags: flags,
		},
	}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("attaching %s: %w", back.Name(), err), dev.Close())
	}
	return dev, nil
}
