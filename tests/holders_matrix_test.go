package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var threeFilesystems = []string{"xfs", "ext4", "btrfs"}

// processKinds are the ways in which a process holds: the kind for the program hold, on which name
// of the target, and the holder that must be found.
var processKinds = []struct{ kind, name, class, path string }{
	{"fd", "file", "fd", "/file"},
	{"fd", "dir", "fd", "/dir"},
	{"fd-write", "file", "fd", "/file"},
	{"fd-path", "file", "fd", "/file"},
	{"fd-path", "", "fd", "/mnt"},
	{"fd-deleted", "doomed", "fd", "/doomed (deleted)"},
	{"fd-tmpfile", "dir", "fd", " (deleted)"},
	{"fd-locked", "file", "fd", "/file"},
	{"map", "dir/file", "map", "/dir/file"},
	{"map-write", "file", "map", "/file"},
	{"map-deleted", "doomed", "map", "/doomed (deleted)"},
	{"cwd", "dir", "cwd", "/dir"},
	{"root", "dir", "root", "/dir"},
	{"thread-cwd", "dir", "cwd", "/dir"},
	{"thread-fd", "file", "fd", "/file"},
	{"zombie-fd", "file", "fd", "/file"},
	{"zombie-map", "file", "map", "/file"},
	{"zombie-cwd", "dir", "cwd", "/dir"},
	{"thread-ns", "", "namespace", ""},
	{"ns-fd", "", "namespace", ""},
	{"detached-tree", "", "detached-mount", "/"},
	{"detached-file", "", "detached-mount", "/file"},
	{"fanotify", "", "fanotify", "[fanotify]"},
	{"socket", "dir", "unix-socket", "sock"},
	{"socket-gone", "dir", "unix-socket", "sock"},
	{"socket-taken", "dir", "unix-socket", "/taken"},
	{"in-flight", "file", "in-flight", "/file"},
	{"ring", "file", "io-uring", "/file"},
}

// TestHoldersInProcesses has every class of holder that is in a process, on every file system:
// found by class, process and path; refused by finalize with the mount left as it was; released at
// once, with one umount2, when the holder is gone.
func TestHoldersInProcesses(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		w.examine(x.dir, 0)
		for _, c := range processKinds {
			t.Run(fs+"/"+c.kind+"/"+c.name, func(t *testing.T) {
				x := x.in(t)
				x.fill()
				h := x.hold(c.kind, x.path(c.name))
				x.heldBy(c.class, h.PID, c.path)
				h.Stop()
				x.released()
			})
		}
	}
}

// in is the target for a subtest.
func (x *target) in(t testing.TB) *target {
	y := *x
	y.workplace = &workplace{t, x.keeper}
	return &y
}

// heldBy wants the holder to be found and to stop a release.
func (x *target) heldBy(class string, pid int, path string) {
	x.t.Helper()
	report := x.examine(x.dir, 3)
	if report.Verdict != "held" {
		x.t.Errorf("verdict %s", report.Verdict)
	}
	report.has(x.t, class, pid, path)
	x.refused(class, pid)
}

// refused wants finalize to refuse because of a holder, and to leave the mount as it was.
func (x *target) refused(class string, pid int) {
	x.t.Helper()
	r := x.installer("finalize", x.dir)
	who := class
	if pid != 0 {
		who = fmt.Sprintf("%s by process %d", class, pid)
	}
	if r.Code != 3 || !strings.Contains(r.Stderr, who) || !strings.Contains(r.Stderr, "to do:") {
		x.t.Errorf("finalize: exit status %d, want 3 and %q:\n%s", r.Code, who, r.Stderr)
	}
	x.asItWas()
}

// TestHoldersByState has holders whose state hides them from tools that look at processes alone.
func TestHoldersByState(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("ext4")
	t.Run("stopped", func(t *testing.T) {
		x := x.in(t)
		h := x.hold("fd", x.path("file"))
		must(t, syscall.Kill(h.PID, syscall.SIGSTOP))
		x.heldBy("fd", h.PID, "/file")
		h.Stop()
		x.released()
	})
	t.Run("program", func(t *testing.T) {
		x := x.in(t)
		program := x.path("program")
		x.run("cp", holdProgram(t), program)
		h := startHolder(t, x.argv(program, "nothing")...)
		x.heldBy("exe", h.PID, "/program")
		x.examine(x.dir, 3).has(t, "map", h.PID, "/program")
		must(t, os.Remove(x.outside(program)))
		x.examine(x.dir, 3).has(t, "exe", h.PID, "/program (deleted)")
		h.Stop()
		x.released()
	})
	t.Run("namespace", func(t *testing.T) {
		x := x.in(t)
		h := startHolder(t, x.argv("unshare", "--mount", "--propagation", "private", holdProgram(t), "nothing")...)
		x.heldBy("namespace", h.PID, "")
		x.examine(x.dir, 3).has(t, "mount", 0, "/mnt")
		h.Stop()
		x.released()
	})
	t.Run("namespace bound", func(t *testing.T) {
		x := x.in(t)
		point := filepath.Join(t.TempDir(), "ns")
		must(t, os.WriteFile(point, nil, 0o600))
		bindNamespace(x, point)
		x.heldBy("namespace", 0, point)
		x.run("umount", point)
		x.released()
	})
	t.Run("everything that holds nothing", func(t *testing.T) {
		x := x.in(t)
		must(t, os.WriteFile(x.outside(x.path("dirty")), make([]byte, 8<<20), 0o600))
		for _, c := range [][2]string{{"inotify", x.dir}, {"plain-device", x.node}, {"fanotify-read", x.dir}} {
			x.hold(c[0], c[1])
		}
		x.examine(x.dir, 0)
		x.released()
	})
}

// bindNamespace keeps a copy of the workplace's namespace by a bind mount alone. The kernel takes
// only a namespace that it believes to be younger, and numbers them by processor: one of them is.
func bindNamespace(x *target, point string) {
	x.t.Helper()
	for i := range 64 {
		cpu := fmt.Sprint(i % 8)
		argv := x.argv("taskset", "-c", cpu, "unshare", "--mount", "--propagation", "private", holdProgram(x.t), "nothing")
		if _, err := command(x.t.Context(), "taskset", "-c", cpu, "true"); err != nil {
			continue // no such processor
		}
		h := startHolder(x.t, argv...)
		bind := x.argv("mount", "--bind", fmt.Sprintf("/proc/%d/ns/mnt", h.PID), point)
		_, err := command(x.t.Context(), bind[0], bind[1:]...)
		h.Stop()
		if err == nil {
			return
		}
	}
	x.t.Fatal("the kernel refuses to bind any namespace")
}
