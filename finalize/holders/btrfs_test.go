package holders

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// twoDevices is a btrfs on two loop devices, mounted, with a subvolume.
type twoDevices struct {
	t     *testing.T
	dir   string
	nodes [2]string
	files [2]*os.File
}

func newTwoDevices(t *testing.T) *twoDevices {
	t.Helper()
	base := t.TempDir()
	x := &twoDevices{t: t, dir: filepath.Join(base, "mnt")}
	for i := range x.nodes {
		image := filepath.Join(base, "image"+string(rune('0'+i)))
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 320<<20); err != nil {
			t.Fatal(err)
		}
		x.nodes[i], x.files[i] = targettest.AttachLoop(t, image)
		t.Cleanup(func() { x.files[i].Close() })
	}
	run(t, "mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", x.nodes[0], x.nodes[1])
	run(t, "btrfs", "device", "scan", x.nodes[0], x.nodes[1])
	if err := os.Mkdir(x.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	x.mount(x.nodes[0])
	run(t, "btrfs", "-q", "subvolume", "create", x.dir+"/sub")
	for _, name := range []string{"file", "sub/file"} {
		if err := os.WriteFile(filepath.Join(x.dir, name), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

func (x *twoDevices) mount(source string) {
	x.t.Helper()
	run(x.t, "mount", "-t", "btrfs", source, x.dir)
	x.t.Cleanup(func() { unix.Unmount(x.dir, unix.MNT_DETACH) })
}

// never wants no answer that a plain mount must not get.
func (x *twoDevices) never(t *testing.T, r Report, path string) {
	t.Helper()
	for _, h := range r.Holders {
		if h.Class == Kernel || h.Class == Frozen || h.Class == OutOfSight {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// TestBtrfsOfTwoDevices asks about each device of a btrfs that is mounted by the name of one.
func TestBtrfsOfTwoDevices(t *testing.T) {
	x := newTwoDevices(t)
	for _, node := range x.nodes {
		r := examine(t, node)
		if h, ok := findClass(r, MountClass); !ok || r.Verdict != Held || h.Path != x.dir {
			t.Errorf("%s: verdict %s, %v", node, r.Verdict, r.Holders)
		}
		x.never(t, r, node)
	}
	if r := examine(t, x.dir); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	// Every mount shows every device, by whatever name it was made.
	m, err := mounts.At(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Source = "/dev/there-is-no-such-node"
	if numbers, err := BlockNumbers(m); err != nil || len(numbers) != 2 {
		t.Errorf("%v, %v", numbers, err)
	}
	// A subvolume that is mounted by itself is a mount of the same file system.
	sub := t.TempDir()
	run(t, "mount", "-t", "btrfs", "-o", "subvol=sub", x.nodes[1], sub)
	t.Cleanup(func() { unix.Unmount(sub, 0) })
	for _, path := range []string{x.dir, sub} {
		if h, ok := findClass(examine(t, path), MountClass); !ok || h.Path == path {
			t.Errorf("%s: %v", path, h)
		}
	}
	run(t, "umount", sub)
	run(t, "umount", x.dir)
	for _, node := range x.nodes {
		if r := examine(t, node); r.Verdict != Free {
			t.Errorf("%s unmounted: verdict %s, %v", node, r.Verdict, r.Holders)
		}
	}
}

// TestBtrfsUnmountedLazily has a process that keeps a btrfs which no namespace shows any more, by a
// file of the top or of a subvolume: it is found from each device.
func TestBtrfsUnmountedLazily(t *testing.T) {
	x := newTwoDevices(t)
	for _, c := range []struct {
		kind, name string
		class      Class
	}{
		{"fd", "file", DetachedMount}, {"fd", "sub/file", DetachedMount}, {"fd-path", "sub", DetachedMount},
		{"map", "file", Map}, {"map", "sub/file", Map}, {"cwd", "sub", Cwd}, {"root", "sub", Root},
	} {
		t.Run(c.kind+"/"+c.name, func(t *testing.T) {
			helper := targettest.Hold(t, c.kind, filepath.Join(x.dir, c.name))
			if err := unix.Unmount(x.dir, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			for _, node := range x.nodes {
				r := examine(t, node)
				if _, ok := find(r, c.class, helper.PID); !ok || r.Verdict != Held {
					t.Errorf("%s: verdict %s, %v", node, r.Verdict, r.Holders)
				}
				x.never(t, r, node)
			}
			// The same while it is mounted anew.
			x.mount(x.nodes[0])
			r := examine(t, x.dir)
			if _, ok := find(r, c.class, helper.PID); !ok || r.Verdict != Held {
				t.Errorf("mounted anew: verdict %s, %v", r.Verdict, r.Holders)
			}
			helper.Stop()
			if r := examine(t, x.dir); r.Verdict != Free {
				t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
			}
		})
	}
}
