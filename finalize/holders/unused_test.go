package holders

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// TestUnused has copies of a file system that nobody uses, in this and in another namespace, and
// users of each copy.
func TestUnused(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			x := targettest.New(t, fs)
			second := t.TempDir()
			run(t, "mount", "--bind", x.Dir, second)
			t.Cleanup(func() { unix.Unmount(second, 0) })
			helper := targettest.Hold(t, "clone-ns")
			unused := func() Report {
				t.Helper()
				r, err := Unused(t.Context(), []mounts.Mount{x.At()})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			if r := unused(); r.Verdict != Free {
				t.Errorf("verdict %s, %v, unseen %v", r.Verdict, r.Holders, r.Unseen)
			}
			for _, path := range []string{x.Path("file"), filepath.Join(second, "file"), fmt.Sprintf("/proc/%d/root%s", helper.PID, x.Path("file"))} {
				user := targettest.Hold(t, "fd", path)
				if r := unused(); r.Verdict != Held {
					t.Errorf("%s: verdict %s, %v", path, r.Verdict, r.Holders)
				} else if _, ok := find(r, FD, user.PID); !ok {
					t.Errorf("%s: %v", path, r.Holders)
				}
				user.Stop()
			}
			helper.Stop()
		})
	}
}

// TestUnusedWhereNotAllIsSeen makes the verdict of the kernel's own tables alone: of file systems
// that stand on each other, with a copy in another namespace, and users that would be seen in /proc
// only.
func TestUnusedWhereNotAllIsSeen(t *testing.T) {
	x := targettest.New(t, "ext4")
	boot := targettest.NewAt(t, "ext4", x.Path("dir"))
	helper := targettest.Hold(t, "clone-ns")
	there := fmt.Sprintf("/proc/%d/root", helper.PID)
	over := t.TempDir()
	ask := func() Report {
		t.Helper()
		snapshot, err := mounts.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := Report{Verdict: Unknown, Holders: []Holder{{Class: FSContext, Suspect: true}}}
		r.unseen(Unseen{Spot: OtherPIDNamespaces, Subject: "processes of the host", Count: 1})
		if err := r.askTable(t.Context(), snapshot, census.uses, x.At(), boot.At()); err != nil {
			t.Fatal(err)
		}
		r.judge()
		return r
	}
	free := func(when string) {
		t.Helper()
		if r := ask(); r.Verdict != Free || r.Probed != Unreferenced || len(r.Holders) > 0 {
			t.Errorf("%s: verdict %s, probed %q, %v, unseen %v", when, r.Verdict, r.Probed, r.References, r.Unseen)
		}
	}
	free("unused")
	for _, c := range []struct{ kind, path, says string }{
		{"cwd", x.Dir, "1 to the mount on " + x.Dir},
		{"fd", boot.Path("file"), "1 to the mount on " + boot.Dir},
		{"map", there + x.Path("file"), " in mnt:["},
		{"detached-tree", x.Dir, "in no mount namespace"},
		{"detached-file", boot.Dir, "in no mount namespace"},
		{"fs-context", x.Dir, "1 to the superblock itself"},
	} {
		user := targettest.Hold(t, c.kind, c.path)
		r := ask()
		if r.Verdict != Unknown || r.Probed != IsReferenced || len(r.Holders) != 1 || !strings.Contains(strings.Join(r.References, "\n"), c.says) {
			t.Errorf("%s %s: verdict %s, probed %q, %q", c.kind, c.path, r.Verdict, r.Probed, r.References)
		}
		user.Stop()
	}
	run(t, "sh", "-c", `cd "$1" && mkdir a b && mount -t overlay -o lowerdir=a:b overlay "$2"`, "sh", x.Dir, over)
	if r := ask(); r.Verdict != Unknown || r.Probed != IsReferenced {
		t.Errorf("an overlay: verdict %s, probed %q", r.Verdict, r.Probed)
	}
	run(t, "umount", over)
	free("after all of them")
	helper.Stop()
	free("the namespace has ended")
}

// TestUnusedWithoutTables has a mount of which the kernel's table cannot be read.
func TestUnusedWithoutTables(t *testing.T) {
	x := targettest.New(t, "ext4")
	m := x.At()
	m.ID, m.Unique = -1, 0
	snapshot, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := Report{Verdict: Unknown}
	r.unseen(Unseen{Spot: OtherPIDNamespaces, Subject: "processes of the host", Count: 1})
	if err := r.askTable(t.Context(), snapshot, census.uses, m); err != nil {
		t.Fatal(err)
	}
	if r.judge(); r.Verdict != Unknown || r.Probed != "" || !r.Blind(Tables) || !strings.Contains(HowToSee(r.Unseen), "CAP_BPF") {
		t.Errorf("verdict %s, probed %q, unseen %v", r.Verdict, r.Probed, r.Unseen)
	}
}
