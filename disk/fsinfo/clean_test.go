package fsinfo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

const testSize = 320 << 20

// made makes a sparse file with a file system in it.
func made(t testing.TB, argv ...string) string {
	t.Helper()
	path := kit.Sparse(t, testSize)
	kit.Run(t, argv[0], append(argv[1:], path)...)
	return path
}

// makers make each type in a file.
var makers = map[Type][]string{
	XFS: {"mkfs.xfs", "-q"}, Ext4: {"mkfs.ext4", "-q"}, Btrfs: {"mkfs.btrfs", "-q"}, VFAT: {"mkfs.vfat", "-F", "32"},
}

func checkFile(t *testing.T, fs Type, path string) error {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, err := CheckClean(fs, f)
	if err != nil && !errors.Is(err, ErrDirty) && !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if (err == nil) != (line != "") {
		t.Errorf("%q with %v", line, err)
	}
	return err
}

// oracleClean asks the file system's own tool.
func oracleClean(t *testing.T, fs Type, path string) bool {
	t.Helper()
	switch fs {
	case XFS:
		return strings.Contains(kit.Run(t, "xfs_logprint", "-t", path), "<CLEAN>")
	case Ext4:
		return !strings.Contains(kit.Run(t, "dumpe2fs", "-h", path), "needs_recovery")
	case VFAT:
		out, _ := exec.Command("fsck.fat", "-n", path).CombinedOutput()
		return !bytes.Contains(out, []byte("Dirty bit is set"))
	}
	for line := range strings.Lines(kit.Run(t, "btrfs", "inspect-internal", "dump-super", path)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "log_root" {
			return fields[1] == "0"
		}
	}
	t.Fatal("btrfs dump-super printed no log_root")
	return false
}

// inUse mounts a file system, writes to it, and returns a copy of the device as it is before the
// unmount.
func inUse(t *testing.T, fs Type, path, options string, work func(dir string)) (dirty string) {
	t.Helper()
	dir := t.TempDir()
	kit.Run(t, "mount", "-t", string(fs), "-o", strings.TrimSuffix("loop,"+options, ","), path, dir)
	defer func() {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}()
	work(dir)
	dirty = filepath.Join(t.TempDir(), "dirty")
	kit.Run(t, "cp", "--sparse=always", path, dirty)
	return dirty
}

func TestCheckCleanAgreesWithTools(t *testing.T) {
	for _, fs := range []Type{XFS, Ext4, Btrfs} { // not every kernel can mount a FAT
		t.Run(string(fs), func(t *testing.T) {
			path := made(t, makers[fs]...)
			if err := checkFile(t, fs, path); err != nil {
				t.Errorf("new: %v", err)
			}
			dirty := inUse(t, fs, path, "", func(dir string) {
				f, err := os.Create(filepath.Join(dir, "synced"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				_, err = f.Write(make([]byte, 100<<10))
				if err := errors.Join(err, f.Sync()); err != nil { // on btrfs, this makes the log tree
					t.Fatal(err)
				}
			})
			for path, want := range map[string]bool{dirty: false, path: true} {
				if oracle := oracleClean(t, fs, path); oracle != want {
					t.Fatalf("%s: the tool says clean=%v: the test does not test what it should", path, oracle)
				}
				if got := checkFile(t, fs, path); (got == nil) != want || got != nil && !errors.Is(got, ErrDirty) {
					t.Errorf("%s: %v, want clean %v", path, got, want)
				}
			}
		})
	}
}

// TestXFSLargeLogBuffers has records with more than one header block.
func TestXFSLargeLogBuffers(t *testing.T) {
	path := made(t, makers[XFS]...)
	dirty := inUse(t, XFS, path, "logbsize=256k", func(dir string) {
		for i := range 300 {
			name := "f" + strings.Repeat("x", i%50) + string(rune('a'+i%26))
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		unix.Sync()
	})
	if checkFile(t, XFS, dirty) == nil || oracleClean(t, XFS, dirty) {
		t.Error("clean while mounted and written to")
	}
	if err := checkFile(t, XFS, path); err != nil || !oracleClean(t, XFS, path) {
		t.Errorf("not clean after an unmount: %v", err)
	}
}

// patched changes bytes of a file system that was just made.
func patched(t *testing.T, fs Type, at int64, bytes ...byte) string {
	t.Helper()
	path := made(t, makers[fs]...)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes, at); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestErrorsOnRecord(t *testing.T) {
	ext4 := made(t, makers[Ext4]...)
	kit.Run(t, "debugfs", "-w", "-R", "set_super_value state 3", ext4) // as after an error of the kernel
	if out := kit.Run(t, "dumpe2fs", "-h", ext4); !strings.Contains(out, "clean with errors") {
		t.Fatalf("dumpe2fs sees no errors: %s", out)
	}
	counted := made(t, makers[Ext4]...)
	kit.Run(t, "debugfs", "-w", "-R", "set_super_value error_count 7", counted)
	xfs := made(t, makers[XFS]...)
	kit.Run(t, "xfs_db", "-x", "-c", "sb 0", "-c", "write -d features_incompat 0x1b", xfs)
	for name, c := range map[string]struct {
		fs   Type
		path string
		want error
	}{
		"ext4 with the state of errors": {Ext4, ext4, ErrDamaged},
		"ext4 that counts errors":       {Ext4, counted, ErrDamaged},
		"ext4 with an orphan":           {Ext4, patched(t, Ext4, Ext4Offset+0xe8, 35), ErrDirty},
		"ext4 with an orphan file":      {Ext4, patched(t, Ext4, Ext4Offset+0x66, 1), ErrDirty},
		"xfs that needs repair":         {XFS, xfs, ErrDamaged},
		"btrfs with the flag ERROR":     {Btrfs, patched(t, Btrfs, BtrfsOffset+0x38, 1<<2|1), ErrDamaged},
		"FAT32 in use":                  {VFAT, patched(t, VFAT, 65, 1), ErrDirty},
		"FAT32 that had an I/O error":   {VFAT, patched(t, VFAT, 65, 2), ErrDamaged},
	} {
		if err := checkFile(t, c.fs, c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if dirtyFAT := c.fs == VFAT && c.want == ErrDirty; dirtyFAT && oracleClean(t, VFAT, c.path) {
			t.Errorf("%s: fsck.fat says that it is clean", name)
		}
	}
	if fat := made(t, makers[VFAT]...); checkFile(t, VFAT, fat) != nil || !oracleClean(t, VFAT, fat) {
		t.Error("a new FAT is not clean")
	}
}

// An ext4 without a journal records its use in the state alone.
func TestExt4WithoutJournal(t *testing.T) {
	path := made(t, "mkfs.ext4", "-q", "-O", "^has_journal")
	dirty := inUse(t, Ext4, path, "", func(dir string) {
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		unix.Sync()
	})
	if out := kit.Run(t, "dumpe2fs", "-h", dirty); !strings.Contains(out, "not clean") {
		t.Fatalf("dumpe2fs calls it clean: %s", out)
	}
	if err := checkFile(t, Ext4, dirty); !errors.Is(err, ErrDirty) {
		t.Errorf("in use: %v", err)
	}
	if err := checkFile(t, Ext4, path); err != nil {
		t.Errorf("unmounted: %v", err)
	}
}

func FuzzCheckClean(f *testing.F) {
	f.Add("xfs", append([]byte("XFSB"), make([]byte, 4096)...))
	f.Add("ext4", make([]byte, 4096))
	f.Add("btrfs", make([]byte, 4096))
	f.Add("vfat", make([]byte, 512))
	xfs := make([]byte, 1024)
	copy(xfs, xfsMagic)
	binary.BigEndian.PutUint32(xfs[4:], 4096)
	f.Add("xfs", xfs)
	f.Fuzz(func(t *testing.T, fs string, image []byte) {
		line, err := CheckClean(Type(fs), bytes.NewReader(image))
		if (err == nil) != (line != "") {
			t.Errorf("%q with %v", line, err)
		}
		_, _ = Read(bytes.NewReader(image))
		Damage(Type(fs), bytes.NewReader(image), int64(len(image)))
	})
}
