package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// rawFile makes a sparse file and checks in the end that no loop device lies over it.
func rawFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := loopsOver(t, path); len(left) > 0 {
			t.Errorf("loop devices left over %s: %v", path, left)
		}
	})
	return path
}

// loopsOver lists the loop devices over a file, by losetup.
func loopsOver(t *testing.T, path string) []string {
	t.Helper()
	return strings.Fields(kit.Run(t, "losetup", "-n", "-O", "NAME", "-j", path))
}

// losetup attaches a file by the system's own tool, as another program would.
func losetup(t *testing.T, path string, args ...string) string {
	t.Helper()
	loop := strings.TrimSpace(kit.Run(t, "losetup", append(args, "-f", "--show", path)...))
	t.Cleanup(func() { kit.Run(t, "losetup", "-d", loop) })
	return loop
}

// runner runs helper programs as the contract of Runner says.
func runner(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, stderr.String())
	}
	return nil
}

// sectorSize is an option that gives a raw file another logical sector size than 512 bytes.
func sectorSize(bytes int) Option { return func(d *Disk) { d.sector = bytes } }

// opened opens a disk and closes it in the end, before the file's own check.
func opened(t *testing.T, path string, options ...Option) *Disk {
	t.Helper()
	d, err := Open(path, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return d
}

// planned lays a disk out and fails the test if that cannot be done.
func planned(t *testing.T, d *Disk, o PlanOptions) Layout {
	t.Helper()
	if o.Arch == "" {
		o.Arch = "amd64"
	}
	l, err := Plan(d.Size(), d.SectorSize(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// written lays a disk out and writes the table.
func written(t *testing.T, d *Disk, o PlanOptions) Layout {
	t.Helper()
	l := planned(t, d, o)
	if err := d.WriteTable(l); err != nil {
		t.Fatal(err)
	}
	return l
}

// part gives a partition that must be there.
func part(t *testing.T, l Layout, name string) Partition {
	t.Helper()
	p, ok := l.Find(name)
	if !ok {
		t.Fatalf("no partition %s in %+v", name, l)
	}
	return p
}
