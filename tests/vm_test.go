package tests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A disk with nothing on it must fail in the firmware, in time, with nothing left running.
func TestBootOfBlankDisk(t *testing.T) {
	for _, firmware := range []Firmware{UEFI, BIOS} {
		t.Run(string(firmware), func(t *testing.T) {
			t.Parallel()
			disk := blankDisk(t, 64<<20)
			e, err := Boot(t.Context(), BootOptions{Disk: disk, Firmware: firmware, Slack: 0.1})
			failed, ok := errors.AsType[*BootError](err)
			if !ok {
				t.Fatalf("booting a blank disk: evidence %v, error %v; want a *BootError", e, err)
			}
			if failed.Phase != PhaseFirmware {
				t.Errorf("failed in phase %v, want %v", failed.Phase, PhaseFirmware)
			}
			noChildOn(t, disk)
		})
	}
}

func TestBootCancelled(t *testing.T) {
	disk := blankDisk(t, 64<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := Boot(ctx, BootOptions{Disk: disk, Firmware: BIOS})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want the context's", err)
	}
	noChildOn(t, disk)
}

func TestBootWithoutDisk(t *testing.T) {
	if _, err := Boot(t.Context(), BootOptions{Disk: "/nonexistent/disk"}); err == nil {
		t.Error("booting a disk that is not there succeeded")
	}
	if _, err := Boot(t.Context(), BootOptions{Disk: blankDisk(t, 1<<20), Firmware: "coreboot"}); err == nil {
		t.Error("booting with unknown firmware succeeded")
	}
}

// The disk under test must not change, although the machine writes.
func TestOverlayKeepsDisk(t *testing.T) {
	disk := blankDisk(t, 1<<20)
	over := filepath.Join(t.TempDir(), "over.qcow2")
	if err := Overlay(t.Context(), disk, "raw", over); err != nil {
		t.Fatal(err)
	}
	mustCommand(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", over)
	mustCommand(t, "qemu-io", "-f", "qcow2", "-c", "read -P 7 0 64k", over)
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Trim(string(b), "\x00") != "" {
		t.Error("writing to the overlay changed the disk")
	}
}

func blankDisk(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

// noChildOn fails the test if a QEMU that this process started is alive, or any process has the
// disk.
func noChildOn(t *testing.T, disk string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range procs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		fds, err := filepath.Glob(dir + "/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == disk {
				t.Errorf("%s still has %s", dir, disk)
			}
		}
	}
}
