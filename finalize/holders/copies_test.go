package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// sharedParent mounts a tmpfs whose mounts propagate, and returns a directory on it.
func sharedParent(t *testing.T) string {
	t.Helper()
	parent := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "parent", parent)
	t.Cleanup(func() { unix.Unmount(parent, 0) })
	if err := mounts.SetPropagation(parent, unix.MS_SHARED); err != nil {
		t.Fatal(err)
	}
	return parent
}

// tmpfsAt mounts a tmpfs, a file system without a block device.
func tmpfsAt(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "x", dir)
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	if err := os.WriteFile(dir+"/file", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func examine(t *testing.T, path string) Report {
	t.Helper()
	r, err := Examine(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCopiesElsewhere has copies of a mount in another mount namespace, as each service of a
// systemd host has them: those that go with the mount hold nothing, and plain umount agrees; all
// others do, with or without a block device beneath.
func TestCopiesElsewhere(t *testing.T) {
	for _, c := range []struct {
		kind string
		held bool
	}{{"ns-kept", false}, {"ns-slave", false}, {"ns-private", true}} {
		for _, fs := range append(targettest.Filesystems(), "tmpfs") {
			t.Run(c.kind+"/"+fs, func(t *testing.T) {
				dir := filepath.Join(sharedParent(t), "mnt")
				if fs == "tmpfs" {
					tmpfsAt(t, dir)
				} else {
					targettest.NewAt(t, fs, dir)
				}
				m, err := mounts.At(dir)
				if err != nil {
					t.Fatal(err)
				}
				helper := targettest.Hold(t, c.kind)
				r := examine(t, dir)
				_, mount := findClass(r, MountClass)
				_, namespace := findClass(r, Namespace)
				if c.held != (r.Verdict == Held) || c.held != mount || c.held != namespace || !c.held && r.Verdict != Free {
					t.Errorf("verdict %s, %v, unseen %v", r.Verdict, r.Holders, r.Unseen)
				}
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
				snapshot, err := mounts.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				left := 0
				for range snapshot.OfSuperblock(m.Dev) {
					left++
				}
				if c.held != (left > 0) {
					t.Errorf("%d mounts are left after umount", left)
				}
				helper.Stop()
			})
		}
	}
}

// TestUseOfCopy has a process that uses a copy which would go with the mount: that keeps both.
func TestUseOfCopy(t *testing.T) {
	dir := filepath.Join(sharedParent(t), "mnt")
	x := targettest.NewAt(t, "ext4", dir)
	helper := targettest.Hold(t, "ns-slave")
	path := fmt.Sprintf("/proc/%d/task/%d/root%s/file", helper.PID, slaveThread(t, helper.PID), dir)
	user := targettest.Hold(t, "fd", path)
	r := examine(t, dir)
	if _, ok := find(r, FD, user.PID); !ok || r.Verdict != Held {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	// A mount on the copy, in the other namespace alone, keeps the copy too.
	user.Stop()
	over := targettest.Hold(t, "nothing")
	run(t, "nsenter", fmt.Sprintf("--mount=/proc/%d/task/%d/ns/mnt", helper.PID, slaveThread(t, helper.PID)),
		"mount", "-t", "tmpfs", "over", dir+"/dir")
	r = examine(t, dir)
	if h, ok := findClass(r, MountClass); !ok || r.Verdict != Held || h.Namespace == "" {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	over.Stop()
	helper.Stop()
	wantFree(t, x)
}

// slaveThread returns the thread of a process that is in another mount namespace than its first.
func slaveThread(t *testing.T, pid int) int {
	t.Helper()
	first, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		t.Fatal(err)
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/mnt", pid))
	for _, link := range links {
		var tid int
		fmt.Sscanf(link, fmt.Sprintf("/proc/%d/task/%%d/ns/mnt", pid), &tid)
		if ns, err := os.Readlink(link); err == nil && ns != first {
			return tid
		}
	}
	t.Fatal("all threads are in one mount namespace")
	return 0
}
