package mounted

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// biosBoot is a line of sfdisk(8) for a BIOS boot partition at 1 MiB.
const biosBoot = "1: start=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\n"

// diskFile is a raw disk with a partition of number 2 at 8 MiB, and other partitions as wanted.
func diskFile(t *testing.T, more string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, 64*mib); err != nil {
		t.Fatal(err)
	}
	sfdisk := exec.Command("sfdisk", "--quiet", raw)
	sfdisk.Stdin = strings.NewReader("label: gpt\n" + more + "2: start=16384,size=32768,type=L\n")
	if out, err := sfdisk.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return raw
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// losetup attaches a file for the time of the test.
func losetup(t *testing.T, raw string, more ...string) string {
	t.Helper()
	dev := command(t, "losetup", append(append([]string{"--find", "--show"}, more...), raw)...)
	t.Cleanup(func() { command(t, "losetup", "--detach", dev) })
	return dev
}

func numberOf(t *testing.T, path string) mounts.DevNum {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return block.Split(st.Rdev)
}

func TestBeneathLoop(t *testing.T) {
	raw := diskFile(t, biosBoot)
	part := losetup(t, raw, "--offset", strconv.Itoa(8*mib), "--sizelimit", strconv.Itoa(16*mib))
	p, err := Beneath(numberOf(t, part))
	if err != nil {
		t.Fatal(err)
	}
	if p.Disk != raw || p.Number != 2 || p.SectorSize != 512 || p.BIOSBoot == nil || p.BIOSBoot.Start != mib {
		t.Errorf("%+v", p)
	}
	p, err = Beneath(numberOf(t, losetup(t, diskFile(t, ""), "--offset", strconv.Itoa(8*mib))))
	if err != nil || p.BIOSBoot != nil {
		t.Errorf("a disk without BIOS boot partition: %+v, %v", p, err)
	}
}

func TestBeneathPartition(t *testing.T) {
	dev := losetup(t, diskFile(t, biosBoot), "--partscan")
	kit.AddPartition(t, dev, 2, 8*mib, 16*mib)
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), filepath.Base(dev)+"p2", "dev"))
	if err != nil {
		t.Fatal(err)
	}
	number, err := block.ParseNumber(string(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Beneath(number)
	if err != nil {
		t.Fatal(err)
	}
	if p.Disk != dev || p.Number != 2 || p.BIOSBoot == nil {
		t.Errorf("%+v, want partition 2 of %s", p, dev)
	}
}

func TestBeneathNothing(t *testing.T) {
	raw := diskFile(t, "")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, make([]byte, 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, dev := range map[string]string{
		"but the whole of " + raw: losetup(t, raw),
		"no partition at byte":    losetup(t, raw, "--offset", strconv.Itoa(mib)),
		"partition table of":      losetup(t, plain, "--offset", strconv.Itoa(mib)),
	} {
		if p, err := Beneath(numberOf(t, dev)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v, %v; want an error that says %q", p, err, says)
		}
	}
	if _, err := Beneath(mounts.DevNum{Major: 0, Minor: 999999}); err == nil {
		t.Error("a device that is not there was found")
	}
}

// A device mapper's device has neither a partition number nor a backing file.
func TestLocateOther(t *testing.T) {
	sys := t.TempDir()
	device := filepath.Join(sys, "devices/virtual/block/dm-0")
	if err := os.MkdirAll(filepath.Join(sys, "dev/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(device, filepath.Join(sys, "dev/block/253:0")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := locate(sys, mounts.DevNum{Major: 253}); err == nil || !strings.Contains(err.Error(), "/dev/dm-0 is no partition of a disk") {
		t.Errorf("%v", err)
	}
}
