package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// kernelList reads the kernel's partitions by their directories in sysfs.
func kernelList(t *testing.T, loop string) string {
	t.Helper()
	dir := filepath.Join("/sys/block", filepath.Base(loop))
	var list []string
	for n := 1; n < 8; n++ {
		p := fmt.Sprintf("%s/%sp%d/", dir, filepath.Base(loop), n)
		start, err := os.ReadFile(p + "start")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		size, err2 := os.ReadFile(p + "size")
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		list = append(list, fmt.Sprintf("%d:%s+%s", n, strings.TrimSpace(string(start)), strings.TrimSpace(string(size))))
	}
	return strings.Join(list, " ")
}

func wantList(l Layout) string {
	var list []string
	for _, p := range l.Partitions {
		list = append(list, fmt.Sprintf("%d:%d+%d", p.Number, p.Start/512, p.Size/512))
	}
	return strings.Join(list, " ")
}

// A loop device with partitions is to us a block device like any other.
func TestAnnounce(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		loop := losetup(t, rawFile(t, 2<<30), "-P", "--sector-size", sector)
		d := opened(t, loop)
		if !d.IsBlock() || fmt.Sprint(d.SectorSize()) != sector || d.Size() != 2<<30 {
			t.Fatalf("the device is %+v", d)
		}
		for _, o := range []PlanOptions{{BIOSBoot: true}, {}, {RootSize: 512 * mib}} {
			l := written(t, d, o)
			if got := kernelList(t, loop); got != "" {
				t.Errorf("after the table was written the kernel still has %s", got)
			}
			for range 2 { // the second finds everything right
				if err := d.Announce(l); err != nil {
					t.Fatal(err)
				}
				if got := kernelList(t, loop); got != wantList(l) {
					t.Errorf("the kernel has %s, want %s", got, wantList(l))
				}
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel's partitions must follow the table also when they are others, and be left when they
// are right.
func TestAnnounceReplacesOnlyWhatDiffers(t *testing.T) {
	loop := losetup(t, rawFile(t, 2<<30), "-P")
	d := opened(t, loop)
	l := written(t, d, PlanOptions{BIOSBoot: true})
	if err := d.Announce(l); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(loop + "p1") // right, and open: must not matter
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	smaller := l
	smaller.Partitions = append([]Partition(nil), l.Partitions...)
	smaller.Partitions[2].Size -= 100 * mib
	if err := d.Announce(smaller); err != nil {
		t.Fatal(err)
	}
	if got := kernelList(t, loop); got != wantList(smaller) {
		t.Errorf("the kernel has %s, want %s", got, wantList(smaller))
	}
}

// An open partition of the old table stops a new table before the first write.
func TestWriteTableRefusesOpenPartition(t *testing.T) {
	loop := losetup(t, rawFile(t, 2<<30), "-P")
	d := opened(t, loop)
	l := written(t, d, PlanOptions{BIOSBoot: true})
	if err := d.Announce(l); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(loop + "p2")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var inUse *InUseError
	err = d.WriteTable(planned(t, d, PlanOptions{}))
	if !errors.As(err, &inUse) || !strings.Contains(err.Error(), loop+"p2") ||
		!strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
	if err := d.Verify(l); err != nil {
		t.Errorf("the old table was touched: %v", err)
	}
}

// Announced partitions must go with the device: the next file that gets it must not inherit
// partitions.
func TestAnnouncedPartitionsGoWithTheLoopDevice(t *testing.T) {
	for _, scan := range []bool{true, false} {
		path := rawFile(t, 2<<30)
		args := []string{"-f", "--show", path}
		if scan {
			args = append(args, "-P")
		}
		loop := strings.TrimSpace(kit.Run(t, "losetup", args...))
		d, err := Open(loop)
		if err != nil {
			t.Fatal(err)
		}
		l := written(t, d, PlanOptions{BIOSBoot: true})
		if err := errors.Join(d.Announce(l), d.Close()); err != nil {
			t.Error(err)
		}
		want := ""
		if scan {
			want = wantList(l)
		}
		if got := kernelList(t, loop); got != want {
			t.Errorf("scanning %v: the kernel has %q, want %q", scan, got, want)
		}
		kit.Run(t, "losetup", "-d", loop)
		if got := kernelList(t, loop); got != "" {
			t.Errorf("scanning %v: after losetup -d the kernel still has %s", scan, got)
		}
	}
}

func TestKeepsPartitions(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"a disk":                            {map[string]string{"ext_range": "256\n"}, true},
		"an old kernel's disk":              {nil, true},
		"a device-mapper device":            {map[string]string{"ext_range": "1\n"}, false},
		"a loop device that scans":          {map[string]string{"ext_range": "256\n", "loop/partscan": "1\n"}, true},
		"a loop device that does not scan":  {map[string]string{"ext_range": "256\n", "loop/partscan": "0\n"}, false},
		"a loop device with max_part unset": {map[string]string{"ext_range": "1\n", "loop/partscan": "0\n"}, false},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			path := filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := liveHost().keepsPartitions(node{dir: dir}); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestAnnounceOfFileDoesNothing(t *testing.T) {
	d := opened(t, rawFile(t, 2<<30))
	if err := d.Announce(written(t, d, PlanOptions{})); err != nil {
		t.Error(err)
	}
}
