package mounts_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// tmpfs mounts an empty file system at a new directory.
func tmpfs(t *testing.T, path string) mounts.Mount {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mounts.Make(mounts.Options{Source: "test", FSType: "tmpfs", Target: path, Data: []string{"size=1M"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for {
			if m, err := mounts.At(path); err != nil || mounts.Unmount(m) != nil {
				return
			}
		}
	})
	return at(t, path)
}

func at(t *testing.T, path string) mounts.Mount {
	t.Helper()
	m, err := mounts.At(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestUnmountAndBusy(t *testing.T) {
	m := tmpfs(t, filepath.Join(t.TempDir(), "m"))
	f, err := os.Create(m.Point + "/f")
	if err != nil {
		t.Fatal(err)
	}
	err = mounts.Unmount(m)
	var failure *mounts.Error
	if !errors.Is(err, unix.EBUSY) || !errors.As(err, &failure) || failure.Flags != "UMOUNT_NOFOLLOW" {
		t.Fatalf("busy: %v", err)
	}
	f.Close()
	if err := mounts.Unmount(m); err != nil {
		t.Fatal(err)
	}
	if err := mounts.Unmount(m); err == nil {
		t.Error("unmounted twice")
	}
}

// TestUnmountIsNotLedAstray swaps a parent directory for a symlink to a place where another mount
// stands under the same name.
func TestUnmountIsNotLedAstray(t *testing.T) {
	base := t.TempDir()
	m := tmpfs(t, base+"/parent/m")
	decoy := tmpfs(t, base+"/decoy/m")
	point, err := mounts.OpenPoint(m)
	if err != nil {
		t.Fatal(err)
	}
	defer point.Close()
	if err := os.Rename(base+"/parent", base+"/renamed"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("decoy", base+"/parent"); err != nil {
		t.Fatal(err)
	}
	if err := mounts.Unmount(m); err == nil {
		t.Error("the name was followed through a symlink")
	}
	if err := point.Unmount(); err != nil {
		t.Errorf("by the directory: %v", err)
	}
	at(t, decoy.Point)
	list, err := mounts.OwnMounts()
	if _, ok := mounts.Find(list, m.ID); ok || err != nil {
		t.Errorf("it is still mounted: %v", err)
	}
}

func TestUnmountRefusesAnotherMount(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	tmpfs(t, m.Point)
	if err := mounts.Unmount(m); err == nil || !strings.Contains(err.Error(), "covered") {
		t.Errorf("the mount on top was unmounted instead: %v", err)
	}
}

func TestMakeSaysWhatTheKernelSays(t *testing.T) {
	dir := t.TempDir()
	err := mounts.Make(mounts.Options{Source: "test", FSType: "tmpfs", Target: dir, Data: []string{"size=nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("%v", err)
	}
}

// TestSetReadOnly wants every flag of the mount and of the superblock as it was, once the
// superblock is writable again: also of a mount that is read-only by itself.
func TestSetReadOnly(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		f, err := os.OpenFile(x.Path("file"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := mounts.SetReadOnly(x.At(), true); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s: with a writer: %v", fs, err)
		}
		f.Close()
		remount := func(flags uintptr) {
			t.Helper()
			if err := unix.Mount("", x.Dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		remount(unix.MS_SYNCHRONOUS | unix.MS_LAZYTIME)
		for _, own := range []uintptr{0, unix.MS_RDONLY, unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME, unix.MS_RDONLY | unix.MS_NODIRATIME} {
			remount(unix.MS_BIND | own)
			before := x.At()
			if err := mounts.SetReadOnly(before, true); err != nil {
				t.Fatal(err)
			}
			m := x.At()
			if m.Options != before.Options || m.SuperOptions != strings.Replace(before.SuperOptions, "rw", "ro", 1) {
				t.Errorf("%s: read-only:\n%s\nbefore:\n%s", fs, m.Line(), before.Line())
			}
			if err := mounts.SetReadOnly(m, false); err != nil {
				t.Fatal(err)
			}
			if now := x.At(); now.Line() != before.Line() {
				t.Errorf("%s: writable again:\n%s\nbefore:\n%s", fs, now.Line(), before.Line())
			}
		}
	}
}

// TestFrozen freezes and thaws writable and read-only file systems.
func TestFrozen(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, readOnly := range []bool{false, true} {
			if err := mounts.SetReadOnly(x.At(), readOnly); err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				option string
				frozen bool
			}{{"--freeze", true}, {"--unfreeze", false}} {
				if out, err := exec.Command("fsfreeze", step.option, x.Dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				before := x.At()
				if frozen, err := mounts.Frozen(before); frozen != step.frozen || err != nil {
					t.Errorf("%s, read-only %v, after %s: frozen %v, %v", fs, readOnly, step.option, frozen, err)
				}
				if now := x.At(); now.Line() != before.Line() {
					t.Errorf("%s: %s\nbefore: %s", fs, now.Line(), before.Line())
				}
			}
		}
	}
}

func TestReferenced(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	for range 3 { // were the mark left, the second would unmount
		if busy, err := mounts.Referenced(t.Context(), m); busy || err != nil {
			t.Fatalf("%v, %v", busy, err)
		}
	}
	helper := targettest.Hold(t, "cwd", m.Point)
	if busy, err := mounts.Referenced(t.Context(), m); !busy || err != nil {
		t.Errorf("%v, %v", busy, err)
	}
	helper.Stop()
}

// TestListSeesNamespaces compares the kernel's enumeration with mountinfo, and with a namespace
// that no process is in.
func TestListSeesNamespaces(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	targettest.Hold(t, "clone-ns")
	targettest.Hold(t, "ns-fd")
	snapshot, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !snapshot.Complete {
		t.Errorf("not complete: %v", snapshot.Unreadable)
	}
	copies := 0
	for ns, other := range snapshot.All {
		if other.Dev != m.Dev {
			continue
		}
		copies++
		if other.Point != m.Point || other.FSType != "tmpfs" || (!ns.Own && other.ID == m.ID) {
			t.Errorf("%+v in %+v", other, ns.Inode)
		}
	}
	if copies != 3 {
		t.Errorf("seen in %d namespaces, want 3", copies)
	}
}

func TestOwnNamespaceIsPrivate(t *testing.T) {
	ours, err := exec.Command("readlink", "/proc/self/ns/mnt").Output()
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err == nil && first+"\n" == string(ours) {
		t.Error("the tests are in the first namespace: EnterPrivate did nothing")
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "INSTALLER_TEST_NAMESPACE=") {
			t.Errorf("the marker is still there: %s", v)
		}
	}
	root := at(t, "/")
	if root.Shared != 0 {
		t.Errorf("mounts get out: %s", root.Line())
	}
}
