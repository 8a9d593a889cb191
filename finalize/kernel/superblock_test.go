package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// summary is the record in short: the uses of the mounts that a namespace has, the number of all
// others, and the references to the superblock itself.
type summary struct {
	uses, hidden, others int
	frozen               bool
}

func summarise(t *testing.T, x *targettest.Target) summary {
	t.Helper()
	super, err := Read(x.At())
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := summary{others: super.Others, frozen: super.Frozen}
	for _, m := range super.Mounts {
		listed := false
		for _, other := range snapshot.All {
			listed = listed || m.Is(other)
		}
		if listed != (m.Namespace != 0) {
			t.Errorf("%+v, in a namespace: %v", m, listed)
		}
		if listed {
			s.uses += m.Uses
		} else {
			s.hidden++
		}
	}
	return s
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// TestRead has users of every kind that refers to a mount or to a superblock, none of which is
// looked for in /proc, on a mount that carries another one and has a copy in another namespace.
func TestRead(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			x := targettest.New(t, fs)
			run(t, "mount", "-t", "tmpfs", "x", x.Path("dir"))
			t.Cleanup(func() { unix.Unmount(x.Path("dir"), 0) })
			clone := targettest.Hold(t, "clone-ns")
			if got := summarise(t, x); got != (summary{}) {
				t.Fatalf("unused: %+v", got)
			}
			there := fmt.Sprintf("/proc/%d/root%s", clone.PID, x.Path("file"))
			for _, c := range []struct {
				kind, path string
				want       summary
			}{
				{"fd", x.Path("file"), summary{uses: 1}},
				{"fd-path", x.Path("file"), summary{uses: 1}},
				{"fd", there, summary{uses: 1}},
				{"map", x.Path("file"), summary{uses: 1}},
				{"cwd", x.Dir, summary{uses: 1}},
				{"in-flight", x.Path("file"), summary{uses: 1}},
				{"detached-tree", x.Dir, summary{hidden: 1}},
				{"detached-file", x.Dir, summary{hidden: 1}},
				{"fs-context", x.Dir, summary{others: 1}},
			} {
				h := targettest.Hold(t, c.kind, c.path)
				if got := summarise(t, x); got != c.want {
					t.Errorf("%s %s: %+v, want %+v", c.kind, c.path, got, c.want)
				}
				h.Stop()
				if got := summarise(t, x); got != (summary{}) {
					t.Errorf("%s %s has ended: %+v", c.kind, c.path, got)
				}
			}
			clone.Stop()
		})
	}
}

// TestReadOverlay has an overlay with a layer on the file system, which is named relatively: no
// table in /proc leads to the layer.
func TestReadOverlay(t *testing.T) {
	x := targettest.New(t, "ext4")
	over := filepath.Join(t.TempDir(), "over")
	if err := os.Mkdir(over, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", `cd "$1" && mkdir other && mount -t overlay -o lowerdir=dir:other overlay "$2"`, "sh", x.Dir, over)
	t.Cleanup(func() { unix.Unmount(over, 0) })
	if got, want := summarise(t, x), (summary{hidden: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestReadFreeze has a file system that somebody keeps frozen, of a type that shows it nowhere too.
func TestReadFreeze(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		run(t, "fsfreeze", "--freeze", x.Dir)
		got := summarise(t, x)
		run(t, "fsfreeze", "--unfreeze", x.Dir)
		if want := (summary{others: 1, frozen: true}); got != want {
			t.Errorf("%s: %+v, want %+v", fs, got, want)
		}
		if got := summarise(t, x); got != (summary{}) {
			t.Errorf("%s, thawed: %+v", fs, got)
		}
	}
}

// TestReadAnotherMount asks with a mount that is covered by another one.
func TestReadAnotherMount(t *testing.T) {
	x := targettest.New(t, "ext4")
	m := x.At()
	run(t, "mount", "--bind", x.Dir, x.Dir)
	t.Cleanup(func() { unix.Unmount(x.Dir, 0) })
	if s, err := Read(m); err == nil {
		t.Errorf("no error: %+v", s)
	}
}

// TestFollows has copies of a mount in other namespaces: those that go with the mount follow, and
// the kernel agrees.
func TestFollows(t *testing.T) {
	for kind, want := range map[string]bool{"ns-kept": true, "ns-slave": true, "ns-private": false, "a mount on it": false} {
		parent := t.TempDir()
		run(t, "mount", "-t", "tmpfs", "parent", parent)
		t.Cleanup(func() { unix.Unmount(parent, 0) })
		if err := mounts.SetPropagation(parent, unix.MS_SHARED); err != nil {
			t.Fatal(err)
		}
		x := targettest.NewAt(t, "ext4", filepath.Join(parent, "mnt"))
		carries := kind == "a mount on it"
		if carries {
			kind = "clone-ns"
		}
		helper := targettest.Hold(t, kind)
		if carries {
			run(t, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", helper.PID), "mount", "-t", "tmpfs", "over", x.Path("dir"))
		}
		super, err := Read(x.At())
		if err != nil {
			t.Fatal(err)
		}
		var follow, stay int
		for _, m := range super.Mounts {
			switch {
			case m.Is(x.At()):
			case m.Follows:
				follow++
			default:
				stay++
			}
		}
		if want != (follow == 1) || want != (stay == 0) || follow+stay != 1 {
			t.Errorf("%s: %d mounts follow, %d stay", kind, follow, stay)
		}
		dev := x.At().Dev
		if err := unix.Unmount(x.Dir, 0); err != nil {
			t.Fatal(err)
		}
		snapshot, err := mounts.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for range snapshot.OfSuperblock(dev) {
			left++
		}
		if left != stay {
			t.Errorf("%s: %d mounts are left after the unmount, want %d", kind, left, stay)
		}
		helper.Stop()
	}
}
