package holders

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// findClass returns the holder of a class, whoever it is.
func findClass(r Report, class Class) (Holder, bool) {
	for _, h := range r.Holders {
		if h.Class == class {
			return h, true
		}
	}
	return Holder{}, false
}

func wantClass(t *testing.T, x *targettest.Target, class Class, path string) Holder {
	t.Helper()
	r := scanTarget(t, x)
	h, ok := findClass(r, class)
	if !ok || h.Suspect || r.Verdict != Held {
		t.Fatalf("no %s; verdict %s, %v", class, r.Verdict, r.Holders)
	}
	if !strings.Contains(h.Path, path) || h.Evidence == "" || h.Remedy == "" {
		t.Errorf("%+v", h)
	}
	return h
}

func TestLoopHolder(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		if err := os.Truncate(x.Path("file"), 1<<20); err != nil {
			t.Fatal(err)
		}
		_, loop := targettest.AttachLoop(t, x.Path("file"))
		wantClass(t, x, Loop, x.Path("file"))
		if err := os.Remove(x.Path("file")); err != nil {
			t.Fatal(err)
		}
		wantClass(t, x, Loop, "/file (deleted)")
		loop.Close()
		wantFree(t, x)
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func TestSwapHolder(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		x := targettest.New(t, fs)
		path := x.Path("swap file")
		run(t, "dd", "if=/dev/zero", "of="+path, "bs=1M", "count=2", "status=none")
		run(t, "chmod", "600", path)
		run(t, "mkswap", "-q", path)
		run(t, "swapon", path)
		t.Cleanup(func() { exec.Command("swapoff", path).Run() })
		wantClass(t, x, Swap, path)
		run(t, "swapoff", path)
		wantFree(t, x)
	}
}

func TestMountHolders(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		elsewhere := t.TempDir()
		run(t, "mount", "--bind", x.Path("dir"), elsewhere)
		t.Cleanup(func() { unix.Unmount(elsewhere, 0) })
		if h := wantClass(t, x, MountClass, elsewhere); !strings.Contains(h.Evidence, " /dir ") {
			t.Errorf("%+v", h)
		}
		run(t, "umount", elsewhere)
		run(t, "mount", "-t", "tmpfs", "test", x.Path("dir"))
		wantClass(t, x, MountClass, x.Path("dir"))
		run(t, "umount", x.Path("dir"))
		wantFree(t, x)
	}
}

func TestNamespaceKeptByBindMount(t *testing.T) {
	x := targettest.New(t, "ext4")
	point := filepath.Join(t.TempDir(), "ns")
	helper := targettest.HoldBound(t, point)
	helper.Stop()
	if h := wantClass(t, x, Namespace, point); h.PID != 0 {
		t.Errorf("%+v", h)
	}
	run(t, "umount", point)
	wantFree(t, x)
}

func TestOverlayHolder(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		base := t.TempDir()
		for _, name := range []string{"lower:x", "upper", "work", "merged"} {
			run(t, "mkdir", "-p", filepath.Join(base, name), x.Path(name))
		}
		lower := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", strings.ReplaceAll(x.Path("lower:x"), ":", `\:`), base, base)
		upper := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, x.Path("upper"), x.Path("work"))
		for _, options := range []string{lower, upper} {
			run(t, "mount", "-t", "overlay", "-o", options, "overlay", base+"/merged")
			t.Cleanup(func() { unix.Unmount(base+"/merged", 0) })
			wantClass(t, x, Overlay, base+"/merged")
			run(t, "umount", base+"/merged")
			wantFree(t, x)
		}
	}
}

// TestOverlayWithRelativeLayers has an overlay whose options lead nowhere, beside one that has
// nothing to do with the target.
func TestOverlayWithRelativeLayers(t *testing.T) {
	x := targettest.New(t, "ext4")
	mount := func(base string) string {
		merged := t.TempDir()
		run(t, "sh", "-c", `cd "$1" && mkdir -p low low2 && mount -t overlay -o lowerdir=low:low2 overlay "$2"`, "sh", base, merged)
		t.Cleanup(func() { unix.Unmount(merged, 0) })
		return merged
	}
	mount(t.TempDir())
	wantFree(t, x)
	merged := mount(x.Dir)
	if h := wantClass(t, x, Overlay, ""); !strings.Contains(h.Evidence, "in no mount namespace") || !strings.Contains(h.Remedy, "relative") {
		t.Errorf("%+v", h)
	}
	run(t, "umount", merged)
	wantFree(t, x)
}

func TestFileImageHolder(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		image, point := x.Path("image.erofs"), t.TempDir()
		run(t, "mkfs.erofs", image, t.TempDir())
		if err := mounts.Make(mounts.Options{Source: image, FSType: "erofs", Target: point}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(point, 0) })
		wantClass(t, x, FileImage, image)
		run(t, "umount", point)
		wantFree(t, x)
	}
}

func TestBinfmtHolder(t *testing.T) {
	x := targettest.New(t, "ext4")
	run(t, "cp", "/bin/true", x.Path("interpreter"))
	point := t.TempDir()
	run(t, "mount", "-t", "binfmt_misc", "none", point)
	t.Cleanup(func() { unix.Unmount(point, 0) })
	entry := ":installer-test:E::installer-test-ext::" + x.Path("interpreter") + ":F"
	if err := os.WriteFile(point+"/register", []byte(entry), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(point+"/installer-test", []byte("-1"), 0) })
	wantClass(t, x, Binfmt, x.Path("interpreter"))
	if err := os.WriteFile(point+"/installer-test", []byte("-1"), 0); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", point)
	wantFree(t, x)
}

func TestUprobeHolder(t *testing.T) {
	x := targettest.New(t, "xfs")
	run(t, "cp", "/bin/true", x.Path("program"))
	point := t.TempDir()
	run(t, "mount", "-t", "tracefs", "none", point)
	t.Cleanup(func() { unix.Unmount(point, 0) })
	events := func(line string) error {
		f, err := os.OpenFile(point+"/uprobe_events", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(line + "\n")
		return err
	}
	if err := events("p:installer_test " + x.Path("program") + ":0x1000"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events("-:installer_test") })
	wantClass(t, x, Uprobe, x.Path("program"))
	if err := events("-:installer_test"); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", point)
	wantFree(t, x)
}

func TestKernelSideHolders(t *testing.T) {
	cases := []struct {
		kind, name string
		class      Class
		path       string
	}{
		{"socket", "dir", UnixSocket, "sock"},
		{"socket-gone", "dir", UnixSocket, "sock"},
		{"socket-net", "dir", UnixSocket, "sock"},        // the process is in a network namespace of its own
		{"socket-thread-net", "dir", UnixSocket, "sock"}, // the process is not, but a socket of it
		{"in-flight", "file", InFlight, "/file"},
		{"ring", "file", IOUring, "/file"},
		{"fanotify", "", Fanotify, "fanotify"},
	}
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, c := range cases {
			t.Run(fs+" "+c.kind, func(t *testing.T) {
				helper := targettest.Hold(t, c.kind, x.Path(c.name))
				if h := wantClass(t, x, c.class, c.path); h.PID != helper.PID {
					t.Errorf("%+v, want process %d", h, helper.PID)
				}
				helper.Stop()
				if c.kind == "ring" { // the kernel lets go some time after the process
					awaitUnreferenced(t, x)
				}
				wantFree(t, x)
			})
		}
	}
}

func awaitUnreferenced(t *testing.T, x *targettest.Target) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		switch held, err := mounts.Referenced(t.Context(), x.At()); {
		case err != nil:
			t.Fatal(err)
		case !held:
			return
		case time.Now().After(deadline):
			t.Fatal("the kernel has not let go in 10 s")
		}
	}
}

func TestWhatHoldsNothing(t *testing.T) {
	x := targettest.New(t, "xfs")
	for _, kind := range []string{"fanotify-read", "inotify"} {
		targettest.Hold(t, kind, x.Dir)
	}
	wantFree(t, x)
}

// TestFSContext has an fs context: the kernel's own tables say of which file system it is, /proc
// does not, so that it is a suspect.
func TestFSContext(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		other := targettest.New(t, fs)
		helper := targettest.Hold(t, "fs-context", x.Dir)
		for source, want := range map[Source]struct {
			suspect bool
			verdict Verdict
		}{FromKernel: {false, Held}, FromProc: {true, Unknown}} {
			r := scanFrom(t, x, source)
			h, ok := find(r, FSContext, helper.PID)
			if !ok || h.Suspect != want.suspect || r.Verdict != want.verdict {
				t.Errorf("%s by %s: verdict %s, %v", fs, source, r.Verdict, r.Holders)
			}
		}
		wantFree(t, other)
		helper.Stop()
		wantFree(t, x)
	}
}

// TestUnattributable has a reference that the search is made not to find: only the kernel's answer
// shows it.
func TestUnattributable(t *testing.T) {
	x := targettest.New(t, "ext4")
	m := x.At()
	helper := targettest.Hold(t, "cwd", x.Dir)
	s, err := newScan(t.Context(), Target{Mounts: []int{m.ID}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	found := Report{Target: Target{Probe: &m}, Searched: []Class{FD, Map}, Verdict: Free}
	if err := s.settle(t.Context(), &found); err != nil {
		t.Fatal(err)
	}
	h, ok := findClass(found, Kernel)
	if found.Verdict != KernelHeld || !ok || !strings.Contains(h.Evidence, "not found: fd, map") {
		t.Errorf("verdict %s, %v", found.Verdict, found.Holders)
	}
	blind := Report{Target: Target{Probe: &m}, Verdict: Unknown}
	blind.unseen(Unseen{Spot: Processes, Subject: "something", Count: 1})
	if err := s.settle(t.Context(), &blind); err != nil || blind.Verdict != Unknown || blind.Probed != IsReferenced {
		t.Errorf("%v, verdict %s, probed %s", err, blind.Verdict, blind.Probed)
	}
	helper.Stop()
	if err := s.settle(t.Context(), &blind); err != nil || blind.Verdict != Free {
		t.Errorf("%v, verdict %s", err, blind.Verdict)
	}
}
