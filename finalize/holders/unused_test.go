package holders

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"installer/finalize/internal/targettest"
	"installer/finalize/mounts"
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

// TestUnusedWhereNotAllIsSeen makes the verdict of the kernel's answers: about each mount, wherever
// it is.
func TestUnusedWhereNotAllIsSeen(t *testing.T) {
	x := targettest.New(t, "ext4")
	helper := targettest.Hold(t, "clone-ns")
	ask := func() Report {
		t.Helper()
		snapshot, err := mounts.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var all []placed
		for ns, m := range snapshot.OfSuperblock(x.At().Dev) {
			all = append(all, placed{ns, m})
		}
		r := Report{Verdict: Unknown}
		r.unseen(Unseen{Spot: OtherPIDNamespaces, Subject: "processes of the host", Count: 1})
		if err := r.askAbout(t.Context(), snapshot, all); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask(); r.Verdict != Free || r.Probed != Unreferenced {
		t.Errorf("verdict %s, probed %q, unseen %v", r.Verdict, r.Probed, r.Unseen)
	}
	user := targettest.Hold(t, "cwd", fmt.Sprintf("/proc/%d/root%s", helper.PID, x.Dir))
	if r := ask(); r.Verdict != Unknown || r.Probed != IsReferenced || r.BlindToInit() {
		t.Errorf("verdict %s, probed %q", r.Verdict, r.Probed)
	}
	user.Stop()
	// A mount that carries another one cannot be asked about.
	run(t, "mount", "-t", "tmpfs", "x", x.Path("dir"))
	t.Cleanup(func() { unix.Unmount(x.Path("dir"), 0) })
	if r := ask(); r.Verdict != Unknown || r.Probed != "" {
		t.Errorf("verdict %s, probed %q", r.Verdict, r.Probed)
	}
}

// TestUnusedWhileANamespaceEnds has a copy of the file system in a namespace that ends after it was
// listed.
func TestUnusedWhileANamespaceEnds(t *testing.T) {
	x := targettest.New(t, "ext4")
	helper := targettest.Hold(t, "clone-ns")
	snapshot, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []placed
	for ns, m := range snapshot.OfSuperblock(x.At().Dev) {
		all = append(all, placed{ns, m})
	}
	helper.Stop()
	r := Report{Verdict: Unknown}
	r.unseen(Unseen{Spot: OtherPIDNamespaces, Subject: "processes of the host", Count: 1})
	if err := r.askAbout(t.Context(), snapshot, all); err != nil || len(all) != 2 || r.Verdict != Free {
		t.Errorf("%d mounts, verdict %s, unseen %v, %v", len(all), r.Verdict, r.Unseen, err)
	}
}

// TestBlindToInit distinguishes process 1 alone from everything else that may hide a user.
func TestBlindToInit(t *testing.T) {
	init := Unseen{Spot: Processes, Processes: []int{1}}
	for _, c := range []struct {
		report Report
		want   bool
	}{
		{Report{Unseen: []Unseen{init, init}}, true},
		{Report{Unseen: []Unseen{init, {Spot: Processes, Processes: []int{1, 2}}}}, false},
		{Report{Unseen: []Unseen{init, {Spot: OtherPIDNamespaces}}}, false},
		{Report{Unseen: []Unseen{{Spot: Processes}}}, false},
		{Report{Unseen: []Unseen{init}, Probed: IsReferenced}, false},
		{Report{Unseen: []Unseen{init}, Holders: []Holder{{Class: FSContext, Suspect: true}}}, false},
	} {
		if got := c.report.BlindToInit(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.report, got, c.want)
		}
	}
}
