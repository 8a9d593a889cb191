package tests

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A judge of the installer must itself be able to fail: each oracle is shown something good, then
// the same thing spoiled.

const mib = 1 << 20

// smallDisk makes by standard tools a disk like the installer's: a table, an ESP, a root with one
// file.
func smallDisk(t *testing.T, fs string) string {
	t.Helper()
	disk := blankDisk(t, 640*mib)
	script := filepath.Join(t.TempDir(), "table")
	table := fmt.Sprintf("label: gpt\nsize=1MiB, type=%s\nsize=64MiB, type=%s\ntype=%s\n", typeBIOS, typeESP, typeRoot)
	if err := os.WriteFile(script, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	mustCommand(t, "sh", "-c", `sfdisk --quiet "$1" <"$2"`, "sh", disk, script)
	format(t, disk, typeESP, "mkfs.fat", "-F", "32")
	format(t, disk, typeRoot, "mkfs."+fs, map[string]string{"xfs": "-f", "ext4": "-F", "btrfs": "-f"}[fs])
	writeRoot(t, disk, fs)
	return disk
}

func withPartition(t *testing.T, disk, guid string, use func(dev string)) {
	t.Helper()
	p, err := partitionOfType(t.Context(), disk, guid)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := attach(disk, os.O_RDWR, p.Start, p.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	use(dev.Name())
}

func format(t *testing.T, disk, guid, mkfs string, args ...string) {
	t.Helper()
	withPartition(t, disk, guid, func(dev string) { mustCommand(t, mkfs, append(args, dev)...) })
}

func writeRoot(t *testing.T, disk, fs string) {
	t.Helper()
	dir := t.TempDir()
	withPartition(t, disk, typeRoot, func(dev string) {
		if err := unix.Mount(dev, dir, fs, 0, ""); err != nil {
			t.Fatalf("mounting %s: %v", dev, err)
		}
		err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600)
		if err := errors.Join(err, unix.Unmount(dir, 0)); err != nil {
			t.Fatal(err)
		}
	})
}

// superblock is where in its partition each file system's first superblock has something to spoil:
// the number of blocks, or btrfs's generation.
var superblock = map[string]int64{"xfs": 8, "ext4": 1024 + 8, "btrfs": 64<<10 + 0x48}

func TestFsckAll(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			LoopSnapshot(t)
			disk := smallDisk(t, fs)
			if err := fsckAll(t.Context(), disk, fs); err != nil {
				t.Fatalf("a good disk is refused: %v", err)
			}
			esp, errESP := partitionOfType(t.Context(), disk, typeESP)
			root, errRoot := partitionOfType(t.Context(), disk, typeRoot)
			if err := errors.Join(errESP, errRoot); err != nil {
				t.Fatal(err)
			}
			for what, off := range map[string]int64{
				"backup table":      640*mib - 512 + 16,
				"second FAT":        espSecondFAT(t, disk, esp.Start),
				"root's superblock": root.Start + superblock[fs],
			} {
				if err := whileSpoiled(t, disk, off, func() error { return fsckAll(t.Context(), disk, fs) }); err == nil {
					t.Errorf("a spoiled %s was not found", what)
				}
			}
		})
	}
}

// espSecondFAT finds the second file allocation table by the BIOS parameter block: reserved sectors
// at 14, sectors for each table at 36.
func espSecondFAT(t *testing.T, disk string, start int64) int64 {
	t.Helper()
	b := make([]byte, 64)
	readAt(t, disk, b, start)
	reserved := int64(b[14]) | int64(b[15])<<8
	sectors := int64(b[36]) | int64(b[37])<<8 | int64(b[38])<<16 | int64(b[39])<<24
	return start + (reserved+sectors)*512 + 16
}

func readAt(t *testing.T, disk string, b []byte, off int64) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// whileSpoiled inverts eight bytes of the disk, runs check, and restores them.
func whileSpoiled(t *testing.T, disk string, off int64, check func() error) error {
	t.Helper()
	b := make([]byte, 8)
	readAt(t, disk, b, off)
	writeAt(t, disk, invert(b), off)
	defer writeAt(t, disk, b, off)
	return check()
}

func writeAt(t *testing.T, disk string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, off)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func invert(b []byte) []byte {
	c := make([]byte, len(b))
	for i := range b {
		c[i] = ^b[i]
	}
	return c
}

// Looking at the root must not write to the disk, and must let go of it.
func TestMountRootReadOnly(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			LoopSnapshot(t)
			disk := smallDisk(t, fs)
			before := digestOf(t, disk)
			t.Run("mounted", func(t *testing.T) {
				b, err := os.ReadFile(filepath.Join(MountRootReadOnly(t, disk), "file"))
				if err != nil || string(b) != "content" {
					t.Errorf("the root's file holds %q (%v)", b, err)
				}
			})
			if digestOf(t, disk) != before {
				t.Error("the disk changed")
			}
		})
	}
}

func digestOf(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestLoopsBelow(t *testing.T) {
	LoopSnapshot(t)
	disk := blankDisk(t, mib)
	dev, err := attach(disk, os.O_RDONLY, 0, mib)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close() // harmless after the close below
	dir := filepath.Dir(disk)
	if found, err := loopsLeft(dir, nil); err != nil || len(found) != 1 || found[filepath.Base(dev.Name())] != disk {
		t.Errorf("while attached: %v (%v)", found, err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if found, err := loopsLeft(dir, nil); err != nil || len(found) != 0 {
		t.Errorf("after the close: %v (%v)", found, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
