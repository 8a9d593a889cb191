package holders

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/kit"
	"installer/tests/targettest"
)

// TestExaminesWhatPathLeadsTo names the target by links and by names on it.
func TestExaminesWhatPathLeadsTo(t *testing.T) {
	x := targettest.New(t, "ext4")
	links := t.TempDir()
	for name, to := range map[string]string{"mount": x.Dir, "directory": x.Path("dir"), "device": x.Loop, "file": x.Path("file"), "on": x.Path("link")} {
		if err := os.Symlink(to, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(t.TempDir(), x.Path("link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(x.Path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := x.At().ID
	for path, want := range map[string]int{
		"mount": id, "mount/": id, "directory": id, "directory/": id, "file": id, "device": 0,
		x.Dir: id, x.Dir + "/": id, x.Path("dir"): id, x.Path("fifo"): id,
	} {
		if !filepath.IsAbs(path) {
			path = links + "/" + path
		}
		s, err := Resolve(t.Context(), path)
		switch {
		case err != nil:
			t.Error(err)
		case (s.Mount == nil) != (want == 0) || want != 0 && s.Mount.ID != want:
			t.Errorf("%s leads to %+v, want mount %d", path, s.Mount, want)
		}
	}
	// A link on the target leads away from it, and one to nothing nowhere.
	if s, err := Resolve(t.Context(), x.Path("link")); err != nil || s.Mount == nil || s.Mount.ID == id {
		t.Errorf("%+v, %v", s.Mount, err)
	}
	if _, err := Resolve(t.Context(), filepath.Join(links, "nothing")); !os.IsNotExist(err) && err == nil {
		t.Error("a missing path is no error")
	}
}

// TestExaminesInOtherNamespace names a mount of another mount namespace, by a process there.
func TestExaminesInOtherNamespace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	helper := targettest.Hold(t, "clone-ns")
	run(t, "nsenter", "--mount=/proc/"+strconv.Itoa(helper.PID)+"/ns/mnt", "mount", "-t", "tmpfs", "x", dir)
	if err := os.WriteFile("/proc/"+strconv.Itoa(helper.PID)+"/root"+dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := "/proc/" + strconv.Itoa(helper.PID) + "/root" + dir
	user := targettest.Hold(t, "fd", path+"/file")
	r := examine(t, path)
	if _, ok := find(r, FD, user.PID); !ok || r.Verdict != Held {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
}

// TestLockedParent has a program that has locked the directory around the mount, as others do.
func TestLockedParent(t *testing.T) {
	x := targettest.New(t, "ext4")
	parent, err := os.Open(filepath.Dir(x.Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if err := unix.Flock(int(parent.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, x.Dir); r.Verdict != Free || r.Probed != Unreferenced {
		t.Errorf("verdict %s, probed %q, %v", r.Verdict, r.Probed, r.Unseen)
	}
}

// TestLockedNamespace has a program that has locked the file by which searches exclude one another:
// the search ends with its context.
func TestLockedNamespace(t *testing.T) {
	x := targettest.New(t, "ext4")
	ns, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := unix.Flock(int(ns.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := mounts.Referenced(ctx, x.At()); err == nil {
		t.Error("the kernel was asked while another search had the lock")
	}
}

// TestFIFOAsMountPoint has a pipe bound to a name: nothing opens it.
func TestFIFOAsMountPoint(t *testing.T) {
	dir := filepath.Join(sharedParent(t), "mnt")
	tmpfsAt(t, dir)
	for _, name := range []string{"fifo", "point"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	point := filepath.Join(dir, "point")
	run(t, "mount", "--bind", filepath.Join(dir, "fifo"), point)
	t.Cleanup(func() { unix.Unmount(point, 0) })
	for _, path := range []string{point, dir} {
		done := make(chan Report, 1)
		go func() { done <- examine(t, path) }()
		select {
		case r := <-done:
			if _, ok := findClass(r, MountClass); !ok || r.Verdict != Held { // each is a mount of the other's superblock
				t.Errorf("%s: verdict %s, %v", path, r.Verdict, r.Holders)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the search hangs", path)
		}
	}
}

// TestReadOnlyFileSystems asks about file systems that cannot be written to.
func TestReadOnlyFileSystems(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	run(t, "mkfs.erofs", image, source)
	loop, file := targettest.AttachLoop(t, image)
	defer file.Close()
	dir := t.TempDir()
	run(t, "mount", "-t", "erofs", "-o", "ro", loop, dir)
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	if r := examine(t, dir); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	helper := targettest.Hold(t, "fd", filepath.Join(dir, "file"))
	if _, ok := find(examine(t, dir), FD, helper.PID); !ok {
		t.Error("an open file is not found")
	}
	helper.Stop()
	if h, ok := findClass(examine(t, loop), MountClass); !ok || h.Path != dir {
		t.Errorf("%+v", h)
	}
	run(t, "umount", dir)
	if r := examine(t, loop); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
}

// TestUnreadablePartition has a partition beyond the end of its disk, as a smaller file under the
// same loop device leaves: every read of it fails, and it is no reason not to answer.
func TestUnreadablePartition(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	targettest.MakeImage(t, "ext4", path)
	loop, file := targettest.AttachLoop(t, path)
	defer file.Close()
	kit.AddPartition(t, loop, 1, 1<<20, 50<<20)
	kit.AddPartition(t, loop, 2, 200<<20, 50<<20)
	if err := os.Truncate(path, 100<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "-c", loop)
	if _, err := os.ReadFile(loop + "p2"); err == nil {
		t.Fatal("the second partition can be read")
	}
	for _, node := range []string{loop, loop + "p2"} {
		if r := examine(t, node); r.Verdict != Free {
			t.Errorf("%s: verdict %s, %v, unseen %v", node, r.Verdict, r.Holders, r.Unseen)
		}
	}
	dir := t.TempDir()
	run(t, "mkfs.ext4", "-q", loop+"p1")
	run(t, "mount", loop+"p1", dir)
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	if h, ok := findClass(examine(t, loop), MountClass); !ok || h.Path != dir {
		t.Errorf("%+v", h)
	}
}
