package holders

import (
	"strings"
	"testing"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// scanTarget scans a target whose own mount is no holder.
func scanTarget(t *testing.T, x *targettest.Target) Report {
	t.Helper()
	m := x.At()
	target := MountTarget(m)
	target.Probe = &m
	target.Blocks = []mounts.DevNum{x.Number}
	if err := target.AddStatDevice(x.Dir); err != nil {
		t.Fatal(err)
	}
	report, err := Scan(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantFree(t *testing.T, x *targettest.Target) {
	t.Helper()
	if r := scanTarget(t, x); r.Verdict != Free {
		t.Fatalf("verdict %s, want free: %v, unreadable: %v", r.Verdict, r.Holders, r.Unreadable)
	}
}

// find returns the holder of a class and process.
func find(r Report, class Class, pid int) (Holder, bool) {
	for _, h := range r.Holders {
		if h.Class == class && h.PID == pid {
			return h, true
		}
	}
	return Holder{}, false
}

func TestProcessHolders(t *testing.T) {
	cases := []struct {
		kind  string
		name  string // on the target
		class Class
		path  string // the end of the path that is shown
	}{
		{"fd", "file", FD, "/file"},
		{"fd", "dir", FD, "/dir"},
		{"fd-write", "file", FD, "/file"},
		{"fd-path", "file", FD, "/file"},
		{"fd-path", "", FD, "/mnt"},
		{"map", "dir/file", Map, "/dir/file"},
		{"cwd", "dir", Cwd, "/dir"},
		{"root", "dir", Root, "/dir"},
		{"thread-cwd", "dir", Cwd, "/dir"},
		{"thread-fd", "file", FD, "/file"},
		{"zombie-fd", "file", FD, "/file"},
		{"zombie-map", "file", Map, "/file"},
		{"zombie-cwd", "dir", Cwd, "/dir"},
		{"fd-deleted", "doomed", FD, "/doomed (deleted)"},
		{"detached-tree", "", DetachedMount, "/"},
	}
	for _, fs := range targettest.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			x := targettest.New(t, fs)
			wantFree(t, x)
			for _, c := range cases {
				t.Run(c.kind, func(t *testing.T) {
					helper := targettest.Hold(t, c.kind, x.Path(c.name))
					report := scanTarget(t, x)
					h, ok := find(report, c.class, helper.PID)
					if !ok || report.Verdict != Held {
						t.Fatalf("no %s of process %d; verdict %s, %v", c.class, helper.PID, report.Verdict, report.Holders)
					}
					if !strings.HasSuffix(h.Path, c.path) || h.Remedy == "" || h.Evidence == "" || h.Comm == "" || !h.Child {
						t.Errorf("incomplete: %+v", h)
					}
					if len(report.Holders) != 1 {
						t.Errorf("%d holders, want 1: %v", len(report.Holders), report.Holders)
					}
					helper.Stop()
					wantFree(t, x)
				})
			}
		})
	}
}

func TestExeHolder(t *testing.T) {
	x := targettest.New(t, "ext4")
	helper := targettest.HoldByExe(t, x.Path("program"))
	report := scanTarget(t, x)
	for _, class := range []Class{Exe, Map} {
		if _, ok := find(report, class, helper.PID); !ok {
			t.Errorf("no %s: %v", class, report.Holders)
		}
	}
	helper.Stop()
	wantFree(t, x)
}

func TestNamespaceHolders(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, kind := range []string{"clone-ns", "thread-ns", "ns-fd"} {
			t.Run(fs+" "+kind, func(t *testing.T) {
				helper := targettest.Hold(t, kind)
				report := scanTarget(t, x)
				h, ok := find(report, Namespace, helper.PID)
				if !ok || h.Namespace == "" {
					t.Errorf("no namespace of process %d: %v", helper.PID, report.Holders)
				}
				mount, ok := find(report, MountClass, 0)
				if !ok || mount.Namespace != h.Namespace || mount.Path != x.Dir {
					t.Errorf("no mount in that namespace: %v", report.Holders)
				}
				helper.Stop()
				wantFree(t, x)
			})
		}
	}
}

func TestScanSelfSeesOwnAndChildren(t *testing.T) {
	x := targettest.New(t, "xfs")
	target := MountTarget(x.At())
	for kind, class := range map[string]Class{"cwd": Cwd, "map": Map, "clone-ns": Namespace} {
		name := map[string]string{"cwd": "dir", "map": "file"}[kind]
		helper := targettest.Hold(t, kind, x.Path(name))
		report, err := ScanSelf(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := find(report, class, helper.PID); !ok || !h.Child || h.Self {
			t.Errorf("%s: %v", kind, report.Holders)
		}
		helper.Stop()
	}
	report, err := ScanSelf(t.Context(), target)
	if err != nil || report.Verdict != Free {
		t.Errorf("after all: %v, %v", report, err)
	}
}
