package holders

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk/mounts"
	"installer/finalize/kernel"
	"installer/tests/targettest"
)

// scanFrom scans a target from one of the sources.
func scanFrom(t *testing.T, x *targettest.Target, source Source) Report {
	t.Helper()
	s, err := newScan(t.Context(), MountTarget(x.At()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if source == FromProc {
		s.openView = func() (*kernel.View, error) { return nil, errors.New("left out") }
	}
	r, err := s.search(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Source != source || (r.Fallback != "") != (source == FromProc) {
		t.Errorf("source %q, fallback %q", r.Source, r.Fallback)
	}
	return r
}

// inShort names the holders of a report, in order.
func inShort(r Report) []string {
	var list []string
	for _, h := range r.Holders {
		list = append(list, fmt.Sprintf("%s %d/%d %s %s", h.Class, h.PID, h.TID, h.Comm, h.Path))
	}
	slices.Sort(list)
	return list
}

// TestSourcesAgree has every kind of holder in a process: the kernel's own tables and /proc show
// the same ones. An fs context is of a file system by the tables alone, see TestFSContext.
func TestSourcesAgree(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, c := range []struct{ kind, name string }{
			{"fd", "file"}, {"fd", "dir"}, {"fd-write", "file"}, {"fd-path", ""}, {"fd-deleted", "doomed"},
			{"fd-tmpfile", "dir"}, {"fd-locked", "file"}, {"map", "dir/file"}, {"map-write", "file"},
			{"map-deleted", "doomed"}, {"cwd", "dir"}, {"root", "dir"}, {"thread-cwd", "dir"}, {"thread-fd", "file"},
			{"zombie-fd", "file"}, {"zombie-map", "file"}, {"zombie-cwd", "dir"}, {"thread-ns", ""}, {"ns-fd", ""},
			{"clone-ns", ""}, {"detached-tree", ""}, {"detached-file", ""}, {"fanotify", ""}, {"fanotify-read", ""},
			{"inotify", ""}, {"socket", "dir"}, {"socket-gone", "dir"}, {"socket-taken", "dir"}, {"socket-net", "dir"},
			{"socket-thread-net", "dir"}, {"in-flight", "file"}, {"ring", "file"}, {"nothing", ""},
		} {
			os.WriteFile(x.Path("doomed"), make([]byte, 64<<10), 0o600)
			h := targettest.Hold(t, c.kind, x.Path(c.name))
			tables, proc := scanFrom(t, x, FromKernel), scanFrom(t, x, FromProc)
			if a, b := inShort(tables), inShort(proc); !slices.Equal(a, b) {
				t.Errorf("%s %s:\nthe tables  %s\n/proc       %s", fs, c.kind, strings.Join(a, "; "), strings.Join(b, "; "))
			}
			blind := proc.Verdict == Unknown && len(proc.Unseen) > 0 // the tables see there too
			if tables.Verdict != proc.Verdict && !blind {
				t.Errorf("%s %s: verdict %s by the tables, %s by /proc: %v", fs, c.kind, tables.Verdict, proc.Verdict, proc.Unreadable)
			}
			h.Stop()
			awaitUnreferenced(t, x) // a ring is given back late
		}
	}
}

// TestDeserted has a namespace that no process is in, and that the kernel does not list.
func TestDeserted(t *testing.T) {
	x := targettest.New(t, "ext4")
	targettest.HoldBound(t, filepath.Join(t.TempDir(), "namespace")).Stop()
	s, err := newScan(t.Context(), MountTarget(x.At()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	clear(s.known)
	clear(s.foreign)
	s.snapshot.Namespaces = slices.DeleteFunc(s.snapshot.Namespaces, func(ns mounts.Namespace) bool { return !ns.Own })
	r, err := s.search(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Holders) != 1 || r.Holders[0].Class != Namespace || r.Holders[0].Namespace == "" || r.Verdict != Held {
		t.Errorf("verdict %s: %v", r.Verdict, r.Holders)
	}
}

// TestSourcesWhileProcessesEnd looks while processes begin and end: the one holder is there by both
// sources, and the tables hide no unix socket.
func TestSourcesWhileProcessesEnd(t *testing.T) {
	x := targettest.New(t, "ext4")
	h := targettest.Hold(t, "fd", x.Path("file"))
	targettest.Storm(t)
	for range 20 {
		for _, source := range []Source{FromKernel, FromProc} {
			r := scanFrom(t, x, source)
			if _, ok := find(r, FD, h.PID); !ok || len(r.Holders) != 1 {
				t.Fatalf("by %s: %v", source, r.Holders)
			}
		}
	}
}

// BenchmarkSources compares the sources.
func BenchmarkSources(b *testing.B) {
	x := targettest.New(b, "ext4")
	m := x.At()
	for _, source := range []Source{FromKernel, FromProc} {
		b.Run(string(source), func(b *testing.B) {
			for b.Loop() {
				s, err := newScan(b.Context(), MountTarget(m))
				if err != nil {
					b.Fatal(err)
				}
				if source == FromProc {
					s.openView = func() (*kernel.View, error) { return nil, errors.New("left out") }
				}
				if _, err := s.search(b.Context()); err != nil {
					b.Fatal(err)
				}
				s.close()
			}
		})
	}
}
