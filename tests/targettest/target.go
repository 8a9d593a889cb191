// Package targettest makes real targets and real holders for the tests of the
// packages around it: file systems on loop devices, and processes that hold them
// in every way. Nothing but tests imports it.
package targettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Target is a mounted file system on a loop device. It has a file "file" of
// 64 KiB and a directory "dir" with another one.
type Target struct {
	Dir    string // the mount point
	Image  string // the file beneath
	Loop   string // the loop device's node
	FSType string
	Number mounts.DevNum // of the loop device
	File   *os.File      // the loop device, not exclusive

	t        testing.TB
	released bool
}

// Filesystems are the types that New can make.
func Filesystems() []string { return []string{"xfs", "ext4", "btrfs"} }

// New makes a file system and mounts it. Whatever is left when the test ends is
// taken down; a target that is still held then fails the test.
func New(t testing.TB, fsType string) *Target {
	t.Helper()
	return NewAt(t, fsType, filepath.Join(t.TempDir(), "mnt"))
}

// NewAt is New with a mount point.
func NewAt(t testing.TB, fsType, dir string) *Target {
	t.Helper()
	target := &Target{t: t, FSType: fsType, Image: filepath.Join(t.TempDir(), "image"), Dir: dir}
	MakeImage(t, fsType, target.Image)
	target.attach()
	target.Mount()
	t.Cleanup(target.cleanup)
	target.fill()
	return target
}

// MakeImage makes a file with a file system in it.
func MakeImage(t testing.TB, fsType, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 320<<20); err != nil {
		t.Fatal(err)
	}
	argv := map[string][]string{
		"xfs": {"mkfs.xfs", "-q", path}, "ext4": {"mkfs.ext4", "-q", "-F", path}, "btrfs": {"mkfs.btrfs", "-q", path},
		"vfat": {"mkfs.vfat", "-F", "32", path},
	}[fsType]
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func (x *Target) attach() {
	x.t.Helper()
	x.Loop, x.File = AttachLoop(x.t, x.Image)
	var st unix.Stat_t
	if err := unix.Fstat(int(x.File.Fd()), &st); err != nil {
		x.t.Fatal(err)
	}
	x.Number = block.Split(st.Rdev)
}

// AttachLoop puts a loop device on a file; it goes when the last user of it has
// gone, of which the returned file is one.
func AttachLoop(t testing.TB, path string) (string, *os.File) {
	t.Helper()
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 100 { // another test may take the device that the kernel offers
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return name, loop
		}
		loop.Close()
		if err != unix.EBUSY {
			t.Fatal(err)
		}
	}
	t.Fatal("no free loop device")
	return "", nil
}

// Mount mounts the file system at Dir, anew after an unmount.
func (x *Target) Mount() {
	x.t.Helper()
	if err := os.MkdirAll(x.Dir, 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := mounts.Make(mounts.Options{Source: x.Loop, FSType: x.FSType, Target: x.Dir}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *Target) fill() {
	x.t.Helper()
	if err := os.Mkdir(x.Path("dir"), 0o755); err != nil {
		x.t.Fatal(err)
	}
	for _, name := range []string{"file", "dir/file", "doomed"} {
		if err := os.WriteFile(x.Path(name), make([]byte, 64<<10), 0o644); err != nil {
			x.t.Fatal(err)
		}
	}
}

// Path returns the path of a name on the target.
func (x *Target) Path(name string) string { return filepath.Join(x.Dir, name) }

// At returns the target's mount.
func (x *Target) At() mounts.Mount {
	x.t.Helper()
	m, err := mounts.At(x.Dir)
	if err != nil {
		x.t.Fatal(err)
	}
	return m
}

// IsMounted says whether something is mounted at Dir.
func (x *Target) IsMounted() bool {
	_, err := mounts.At(x.Dir)
	return err == nil
}

// Close gives the loop device back; Detach is the same under another name.
func (x *Target) Close() error {
	x.released = true
	return x.File.Close()
}

// Name implements a detacher.
func (x *Target) Name() string { return x.Loop }

// Detach implements a detacher.
func (x *Target) Detach() error { return x.Close() }

func (x *Target) cleanup() {
	if x.IsMounted() {
		if err := unix.Unmount(x.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
			x.t.Errorf("taking the target down: %v", err)
		}
	}
	if !x.released {
		x.File.Close()
	}
}
