package finalize

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/finalize/internal/targettest"
)

// snapshot copies what the device holds at this moment.
func snapshot(t *testing.T, x *targettest.Target, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("cp", "--sparse=always", x.Image, path).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
	return path
}

// oracleClean asks the file system's own tool.
func oracleClean(t *testing.T, fs, path string) bool {
	t.Helper()
	argv := map[string][]string{
		"xfs": {"xfs_logprint", "-t", path}, "ext4": {"dumpe2fs", "-h", path},
		"btrfs": {"btrfs", "inspect-internal", "dump-super", path},
	}[fs]
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	switch fs {
	case "xfs":
		return bytes.Contains(out, []byte("<CLEAN>"))
	case "ext4":
		return !bytes.Contains(out, []byte("needs_recovery"))
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "log_root" {
			return fields[1] == "0"
		}
	}
	t.Fatalf("no log_root in %s", out)
	return false
}

func checkFile(t *testing.T, fs, path string) error {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, err := CheckClean(fs, f)
	if err != nil && !errors.Is(err, ErrDirty) {
		t.Fatal(err)
	}
	if (err == nil) != (line != "") {
		t.Errorf("%q with %v", line, err)
	}
	return err
}

func TestCheckCleanAgreesWithTools(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			x := targettest.New(t, fs)
			f, err := os.Create(x.Path("synced"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(make([]byte, 100<<10)); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil { // on btrfs, this makes the log tree
				t.Fatal(err)
			}
			f.Close()
			dirty := snapshot(t, x, "dirty")
			if err := unix.Unmount(x.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
			clean := snapshot(t, x, "clean")
			for path, want := range map[string]bool{dirty: false, clean: true} {
				if oracle := oracleClean(t, fs, path); oracle != want {
					t.Fatalf("%s: the tool says clean=%v: the test does not test what it should", path, oracle)
				}
				if got := checkFile(t, fs, path) == nil; got != want {
					t.Errorf("%s: clean %v, want %v", path, got, want)
				}
			}
		})
	}
}

func TestFreshFilesystemsAreClean(t *testing.T) {
	for _, fs := range append(targettest.Filesystems(), "vfat") {
		path := filepath.Join(t.TempDir(), "image")
		targettest.MakeImage(t, fs, path)
		if err := checkFile(t, fs, path); err != nil {
			t.Errorf("%s: %v", fs, err)
		}
	}
}

// TestXFSLargeLogBuffers has records with more than one header block.
func TestXFSLargeLogBuffers(t *testing.T) {
	x := targettest.New(t, "xfs")
	if err := unix.Unmount(x.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(x.Loop, x.Dir, "xfs", 0, "logbsize=256k"); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := os.WriteFile(x.Path("f"+strings.Repeat("x", i%50)+string(rune('a'+i%26))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unix.Sync()
	if dirty := snapshot(t, x, "dirty"); checkFile(t, "xfs", dirty) == nil || oracleClean(t, "xfs", dirty) {
		t.Error("clean while mounted and written to")
	}
	if err := unix.Unmount(x.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	if clean := snapshot(t, x, "clean"); checkFile(t, "xfs", clean) != nil || !oracleClean(t, "xfs", clean) {
		t.Errorf("not clean after an unmount: %v", checkFile(t, "xfs", clean))
	}
}

func TestOrphansAreDirty(t *testing.T) {
	image := make([]byte, 4096)
	image[1024+0x38], image[1024+0x39] = 0x53, 0xEF
	if _, err := CheckClean("ext4", bytes.NewReader(image)); err != nil {
		t.Fatal(err)
	}
	image[1024+0xE8] = 35
	if _, err := CheckClean("ext4", bytes.NewReader(image)); !errors.Is(err, ErrDirty) {
		t.Errorf("with an orphan: %v", err)
	}
	image[1024+0xE8], image[1024+0x66] = 0, 1
	if _, err := CheckClean("ext4", bytes.NewReader(image)); !errors.Is(err, ErrDirty) {
		t.Errorf("with an orphan file: %v", err)
	}
}

func FuzzCheckClean(f *testing.F) {
	f.Add("xfs", append([]byte("XFSB"), make([]byte, 4096)...))
	f.Add("ext4", make([]byte, 4096))
	f.Add("btrfs", make([]byte, 4096))
	f.Add("vfat", make([]byte, 512))
	f.Fuzz(func(t *testing.T, fs string, image []byte) {
		line, err := CheckClean(fs, bytes.NewReader(image))
		if (err == nil) != (line != "") {
			t.Errorf("%q with %v", line, err)
		}
	})
}
