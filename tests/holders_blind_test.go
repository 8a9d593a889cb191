package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHoldersOutOfSight asks from a PID namespace of its own: the kernel's own tables name the
// process outside all the same. Without them, or without privilege, the report says what it cannot
// see.
func TestHoldersOutOfSight(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("xfs")
	h := x.hold("map", x.path("file"))
	binary := filepath.Join(t.TempDir(), "installer") // where everybody can execute it
	mustCommand(t, "cp", BuildInstaller(t), binary)
	must(t, os.Chmod(binary, 0o755))
	for dir := filepath.Dir(binary); dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	blind := []string{"unshare", "--pid", "--fork", "--mount-proc"}
	argv := x.argv(append(blind, binary, "holders", "--json", x.dir)...)
	r := RunBinary(t, argv[0], argv[1:]...)
	var report holdersReport
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	named := slices.ContainsFunc(report.Holders, func(f finding) bool {
		return f.Class == "map" && f.PID == 0 && f.HostPID == h.PID && f.Path == x.path("file")
	})
	if r.Code != 3 || report.Verdict != "held" || report.Source != "kernel" || !named {
		t.Errorf("exit status %d, verdict %s by %s: %+v", r.Code, report.Verdict, report.Source, report.Holders)
	}
	for name, c := range map[string]struct {
		in   []string
		says string
	}{
		"without tables": {append(blind, "sh", "-ec", `mount -t tmpfs none /sys/kernel/btf; exec "$@"`, "sh"), "PID namespace of its own"},
		"no privilege":   {[]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, "not running as root"},
	} {
		t.Run(name, func(t *testing.T) {
			argv := x.argv(append(c.in, binary, "holders", "--json", x.dir)...)
			r := RunBinary(t, argv[0], argv[1:]...)
			var report holdersReport
			if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
				t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
			}
			if r.Code == 0 || report.Verdict == "free" || report.Source != "proc" || report.Fallback == "" || !strings.Contains(strings.Join(report.Unreadable, "\n"), c.says) {
				t.Errorf("exit status %d, verdict %s, unreadable %q", r.Code, report.Verdict, report.Unreadable)
			}
		})
	}
	argv = x.argv(append(blind, binary, "finalize", x.dir)...)
	if r := RunBinary(t, argv[0], argv[1:]...); r.Code == 0 {
		t.Errorf("released what is held\n%s", r.Stdout)
	}
	h.Stop()
	x.released()
}

// TestHungFileSystemElsewhere has a file system whose server never answers, and a process with open
// files on it: the search must not ask it for anything.
func TestHungFileSystemElsewhere(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("ext4")
	hung := x.hold("hung", t.TempDir())
	h := x.hold("fd", x.path("file"))
	done := make(chan holdersReport, 1)
	go func() { done <- x.examine(x.dir, 3) }()
	select {
	case report := <-done:
		report.has(t, "fd", h.PID, "/file")
		if slices.ContainsFunc(report.Holders, func(f finding) bool { return f.PID == hung.PID }) {
			t.Errorf("the server of the hung file system is a holder: %+v", report.Holders)
		}
	case <-time.After(20 * time.Second):
		hung.Stop() // that ends every request
		t.Fatal("the search hangs with the file system")
	}
	h.Stop()
	x.released()
	hung.Stop()
}

// TestDeviceKeptByNamespaceAlone has a device that is mounted in a namespace that no process is in:
// an installation on it is refused with that namespace named, before anything is written.
func TestDeviceKeptByNamespaceAlone(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("xfs")
	keeper := x.hold("ns-fd")
	x.run("umount", x.dir)
	before := mustCommand(t, "sha256sum", x.node)
	r := w.installer("to-disk", "--source-imgref", TinyImage(t), "--bootloader", "none", "--wipe", x.node)
	if r.Code != 4 || !strings.Contains(r.Stderr, "namespace in mnt:[") || !strings.Contains(r.Stderr, "process "+strconv.Itoa(keeper.PID)) {
		t.Errorf("exit status %d, want 4 and the namespace named\n%s", r.Code, r.Stderr)
	}
	if after := mustCommand(t, "sha256sum", x.node); after != before {
		t.Error("the device was written to")
	}
	keeper.Stop()
	fd, err := unix.Open(x.node, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("it is still held: %v", err)
	}
	unix.Close(fd)
}

// TestWipeNeedsAVerdict has files that are to be deleted, where the installer cannot see who uses
// them: as in a container without --pid=host. They are refused before one is deleted, with how to
// see more, unless the kernel's own tables prove that nobody does.
func TestWipeNeedsAVerdict(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("ext4")
	install := func(in ...string) Result {
		argv := x.argv(append(append(in, BuildInstaller(t)), tinyArgs(t, x.dir, "--replace=wipe", "--dry-run")...)...)
		return RunBinary(t, argv[0], argv[1:]...)
	}
	blind := []string{"unshare", "--pid", "--fork", "--mount-proc"}
	h := x.hold("map", x.path("file"))
	if r := install(); r.Code != 3 || !strings.Contains(r.Stderr, "map by process "+strconv.Itoa(h.PID)) {
		t.Errorf("in sight: exit status %d, want 3 and the process named:\n%s", r.Code, r.Stderr)
	}
	r := install(blind...)
	if outside := fmt.Sprintf("map by process %d outside", h.PID); r.Code != 3 || !strings.Contains(r.Stderr, outside) {
		t.Errorf("out of sight: exit status %d, want 3 and %q:\n%s", r.Code, outside, r.Stderr)
	}
	h.Stop()
	// A user that no mount in a namespace shows: it was unmounted in use.
	lazy := t.TempDir()
	x.run("mount", "--bind", x.dir, lazy)
	h = x.hold("cwd", lazy)
	x.run("umount", "--lazy", lazy)
	r = install(blind...)
	if outside := fmt.Sprintf("cwd by process %d outside", h.PID); r.Code != 3 || !strings.Contains(r.Stderr, outside) {
		t.Errorf("unmounted in use, out of sight: exit status %d, want 3 and %q:\n%s", r.Code, outside, r.Stderr)
	}
	h.Stop()
	// The kernel's own tables prove that nobody uses it, in sight or out of sight. A copy of the mount
	// that would stay holds it.
	if r := install(blind...); r.Code != 3 || !strings.Contains(r.Stderr, "namespace by process") {
		t.Errorf("unused, with a private copy of the mount: exit status %d, want 3\n%s", r.Code, r.Stderr)
	}
	x.run("mount", "--make-rshared", "/")
	for _, in := range [][]string{nil, append(blind, "--propagation", "unchanged")} {
		if r := install(in...); r.Code != 0 {
			t.Errorf("%v, unused: exit status %d\n%s", in, r.Code, r.Stderr)
		}
	}
	// Without them nothing is proven.
	r = install(append(blind, "sh", "-ec", `mount -t tmpfs none /sys/kernel/btf; exec "$@"`, "sh")...)
	if r.Code != 4 || !strings.Contains(r.Stderr, "processes outside of this PID namespace; ") || !strings.Contains(r.Stderr, "CAP_BPF") {
		t.Errorf("without types of the kernel: exit status %d, want 4 and the tables named:\n%s", r.Code, r.Stderr)
	}
	if _, err := os.Stat(x.outside(x.path("file"))); err != nil {
		t.Error(err)
	}
}

// TestSummarySaysWhatWasNotSeen installs where /proc does not show all processes: the disk is proven
// to be released by its superblock, and the summary says that a holder would not have been named,
// where the kernel's own tables cannot be read either.
func TestSummarySaysWhatWasNotSeen(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	const spot = "processes outside of this PID namespace"
	blind := []string{"unshare", "--pid", "--fork", "--mount-proc"}
	for _, in := range [][]string{append(blind, "sh", "-ec", `mount -t tmpfs none /sys/kernel/btf; exec "$@"`, "sh"), {"env"}} {
		argv := append(in, BuildInstaller(t), "to-disk", "--source-imgref", TinyImage(t), "--bootloader", "none", "--wipe", "--via-loopback", raw)
		r := RunBinary(t, argv[0], argv[1:]...).Must(t)
		_, summary, _ := strings.Cut(r.Stdout, "Installation complete")
		hidden := in[0] == "unshare"
		if strings.Contains(summary, spot) != hidden || strings.Contains(summary, "--pid=host") != hidden {
			t.Errorf("%s: the summary says\n%s", in[0], summary)
		}
	}
}
