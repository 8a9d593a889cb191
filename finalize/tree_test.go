package finalize

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk/block"
	"installer/tests/kit"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/holders"
	"installer/tests/targettest"
)

// mount runs mount(8), and unmounts all that stands on the last argument when the test ends.
func mount(t *testing.T, args ...string) {
	t.Helper()
	at := args[len(args)-1]
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, "mount", args...)
	t.Cleanup(func() {
		if m, err := mounts.At(at); err == nil {
			kit.Run(t, "umount", "-R", m.Point)
		}
	})
}

// finalizeTree runs the release of the command finalize.
func finalizeTree(t *testing.T, path string, copies Copies) (*Report, error) {
	t.Helper()
	target, closeAll, err := Discover(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	target.Copies = copies
	p := Pipeline{Stages: TreeStages()}
	report, err := p.Run(t.Context(), target, nil)
	if report.Released != (err == nil) {
		t.Errorf("released %v with %v", report.Released, err)
	}
	return report, err
}

// lines returns the mounts at some places, to be compared.
func lines(t *testing.T, points ...string) string {
	t.Helper()
	var text strings.Builder
	for _, point := range points {
		m, err := mounts.At(point)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(m.Line() + "\n")
	}
	return text.String()
}

// refusedFirst wants a release to be refused because of a holder, with nothing changed before.
func refusedFirst(t *testing.T, path string, class holders.Class, pid int) {
	t.Helper()
	before := lines(t, path)
	report, err := finalizeTree(t, path, CopiesHold)
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("%s is not refused: %v", path, err)
	}
	if !slices.ContainsFunc(held.Holders, func(h holders.Holder) bool { return h.Class == class && h.PID == pid }) {
		t.Errorf("no %s of process %d in: %v", class, pid, err)
	}
	if !slices.Contains(statuses(report, NotRun), "trim") {
		t.Errorf("it was changed: %v", statuses(report, OK))
	}
	if now := lines(t, path); now != before {
		t.Errorf("the mount is not as it was:\n%s%s", now, before)
	}
}

// TestWithoutDevice releases file systems that are on no device of ours.
func TestWithoutDevice(t *testing.T) {
	for _, fsType := range []string{"tmpfs", "ramfs", "overlay"} {
		dir := t.TempDir()
		path, options := dir+"/mnt", "rw"
		if fsType == "overlay" {
			for _, name := range []string{"lower", "upper", "work"} {
				if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			options = "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
		}
		again := func() { mount(t, "-t", fsType, "-o", options, "test", path) }
		again()
		helper := targettest.Hold(t, "clone-ns")
		refusedFirst(t, path, holders.Namespace, helper.PID)
		if _, err := finalizeTree(t, path, UnmountCopies); err != nil {
			t.Errorf("%s: with the copy unmounted too: %v", fsType, err)
		}
		helper.Stop()

		again()
		report, err := finalizeTree(t, path, CopiesHold)
		if err != nil || !slices.Contains(report.Proven, SuperblocksGone) {
			t.Errorf("%s: %v, proven %v", fsType, err, report.Proven)
		}
		for _, s := range report.Stages {
			if s.Status == OK && (s.Evidence == nil || s.Summary == "") {
				t.Errorf("%s: %s is ok without evidence", fsType, s.Name)
			}
		}

		// The superblock lives with no mount of it: that shows in nothing but its device number.
		again()
		helper = targettest.Hold(t, "context-in-flight", path)
		report, err = finalizeTree(t, path, CopiesHold)
		var unproven *UnprovenError
		if !errors.As(err, &unproven) || !unproven.Unmounted || !slices.Equal(statuses(report, NotProven), []string{"prove-released"}) {
			t.Errorf("%s: with an fs context: %v, not proven %v", fsType, err, statuses(report, NotProven))
		}
		helper.Stop()
	}
}

// TestKinds sorts file systems by where they keep their content; a pool, a server, a program and a
// new type prove nothing.
func TestKinds(t *testing.T) {
	for line, want := range map[string]kind{
		"tmpfs 0:40": inMemory, "overlay 0:40": layered, "proc 0:40": interfaces, "zfs 0:40": elsewhere, "nfs4 0:40": elsewhere,
		"fuse.sshfs 0:40": elsewhere, "9p 0:40": elsewhere, "ext4 7:0": stored, "btrfs 0:40": stored, "fuseblk 8:1": stored, "brandnew 0:40": elsewhere,
	} {
		fsType, number, _ := strings.Cut(line, " ")
		dev, err := block.ParseNumber(number)
		if err != nil {
			t.Fatal(err)
		}
		if got := kindOf(mounts.Mount{FSType: fsType, Dev: dev}); got != want {
			t.Errorf("%s: kind %d, want %d", line, got, want)
		}
	}
	dead := Dead{}
	r := Release{}
	number := mounts.DevNum{Minor: 1 << 19} // no superblock has it: the kernel gives the lowest
	if err := r.proveNumber(t.Context(), &dead, &mounts.Snapshot{}, filesystem{mounts.Mount{FSType: "zfs", Dev: number}, elsewhere}); err != nil || len(dead.Open) != 1 {
		t.Errorf("a dataset: %v, %v", dead.Open, err)
	}
}

// TestForeignBind has binds of another file system below the root, which has a writer: that file
// system is left alone.
func TestForeignBind(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		host, x := targettest.New(t, fs), targettest.New(t, "ext4")
		mount(t, "--bind", host.Path("dir"), x.Path("cache"))
		if err := os.WriteFile(x.Path("bound"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		kit.Run(t, "mount", "--bind", host.Path("file"), x.Path("bound"))
		before := lines(t, host.Dir)
		writer := targettest.Hold(t, "fd-write", host.Path("file"))
		report, err := finalizeTree(t, x.Dir, CopiesHold)
		if err != nil || len(report.Binds) != 2 || x.IsMounted() {
			t.Errorf("%s: %v, binds %v", fs, err, report.Binds)
		}
		for _, s := range report.Stages {
			if f, ok := s.Evidence.(PerFilesystem); ok && (len(f.Filesystems) != 1 || f.Filesystems[0].Mountpoint != x.Dir) {
				t.Errorf("%s: %s treated %v", fs, s.Name, f.Filesystems)
			}
		}
		if now := lines(t, host.Dir); now != before {
			t.Errorf("the other file system is not as it was:\n%s%s", now, before)
		}
		writer.Stop()
	}
}

// TestPeersOfBindsStay has a bind that is a peer of its original, as mount --rbind of /dev makes it
// where mounts are shared: the mounts on the original stay.
func TestPeersOfBindsStay(t *testing.T) {
	base := t.TempDir()
	mount(t, "-t", "tmpfs", "test", base)
	kit.Run(t, "mount", "--make-shared", base)
	mount(t, "-t", "tmpfs", "test", base+"/original")
	mount(t, "-t", "tmpfs", "test", base+"/original/pts")
	x := targettest.NewAt(t, "ext4", base+"/mnt")
	mount(t, "--rbind", base+"/original", x.Path("dev"))
	if _, err := finalizeTree(t, x.Dir, CopiesHold); err != nil {
		t.Error(err)
	}
	lines(t, base+"/original", base+"/original/pts")
}

// TestSharedRoot has a root whose superblock is mounted outside of the tree, in each way.
func TestSharedRoot(t *testing.T) {
	x := targettest.New(t, "btrfs")
	other := t.TempDir()
	kit.Run(t, "btrfs", "-q", "subvolume", "create", x.Path("home"))
	for _, args := range [][]string{
		{"--bind", x.Dir}, {"--bind", x.Path("dir")}, {"-o", "subvol=home", x.Loop},
	} {
		mount(t, append(args, other)...)
		refusedFirst(t, x.Dir, holders.MountClass, 0)
		kit.Run(t, "umount", other)
	}
	// The root itself may be the bind.
	mount(t, "--bind", x.Path("dir"), other)
	refusedFirst(t, other, holders.MountClass, 0)
	kit.Run(t, "umount", other)

	// An overlay with a layer on the target keeps it.
	mount(t, "-t", "overlay", "-o", "lowerdir="+x.Path("dir")+":"+x.Path("home"), "test", other)
	refusedFirst(t, x.Dir, holders.Overlay, 0)
	kit.Run(t, "umount", other)

	// Mounts within the tree are no hindrance, nor are the binds of a chroot.
	mount(t, "-o", "subvol=home", x.Loop, x.Path("a"))
	mount(t, "--bind", x.Path("dir"), x.Path("b"))
	mount(t, "-t", "tmpfs", "test", x.Path("c"))
	mount(t, "-t", "overlay", "-o", "lowerdir="+x.Path("dir")+":"+x.Path("home"), "test", x.Path("d"))
	mount(t, "--bind", "/proc", x.Path("proc"))
	mount(t, "--bind", "/sys", x.Path("sys"))
	mount(t, "--bind", "/dev", x.Path("dev"))
	report, err := finalizeTree(t, x.Dir, CopiesHold)
	if err != nil || len(report.Binds) != 3 {
		t.Errorf("%v, binds %v", err, report.Binds)
	}
	lines(t, "/proc", "/sys", "/dev")
}

// TestReadOnlyType releases a file system that the kernel cannot write.
func TestReadOnlyType(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/content", 0o755); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, "mkfs.erofs", dir+"/image", dir+"/content")
	mount(t, "-o", "loop", "-t", "erofs", dir+"/image", dir+"/mnt")
	if _, err := finalizeTree(t, dir+"/mnt", CopiesHold); err != nil {
		t.Error(err)
	}
}

// TestFIFO has a FIFO of the target bound within the tree, and of another file system: to open it
// would wait for ever.
func TestFIFO(t *testing.T) {
	x := targettest.New(t, "ext4")
	outside := filepath.Join(t.TempDir(), "fifo")
	for _, fifo := range []string{x.Path("fifo"), outside} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(x.Path("on"+filepath.Base(filepath.Dir(fifo))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		kit.Run(t, "mount", "--bind", fifo, x.Path("on"+filepath.Base(filepath.Dir(fifo))))
	}
	parent, err := os.Open(filepath.Dir(x.Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if err := unix.Flock(int(parent.Fd()), unix.LOCK_EX); err != nil { // somebody's own business
		t.Fatal(err)
	}
	if _, err := finalizeTree(t, x.Dir, CopiesHold); err != nil {
		t.Error(err)
	}
}

// TestCovered has file systems below others that are mounted on the same place.
func TestCovered(t *testing.T) {
	x, below := targettest.New(t, "ext4"), targettest.New(t, "xfs")
	mount(t, below.Loop, x.Path("a"))
	mount(t, "-t", "tmpfs", "test", x.Path("a"))
	mount(t, "-t", "tmpfs", "test", x.Path("a"))
	if err := unix.Unmount(below.Dir, 0); err != nil {
		t.Fatal(err)
	}
	report, err := finalizeTree(t, x.Dir, CopiesHold)
	if err != nil || len(report.Devices) != 2 {
		t.Errorf("%v, devices %v", err, report.Devices)
	}
}

// TestFrozenFirst has a file system that somebody has frozen: nothing is done to it.
func TestFrozenFirst(t *testing.T) {
	x := targettest.New(t, "xfs")
	kit.Run(t, "fsfreeze", "--freeze", x.Dir)
	refusedFirst(t, x.Dir, holders.Frozen, 0)
	kit.Run(t, "fsfreeze", "--unfreeze", x.Dir)
}

// TestDeviceWithoutNode finds the devices of file systems whose nodes are not in /dev.
func TestDeviceWithoutNode(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		m := x.At()
		if err := unix.Mount("test", "/dev", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod("/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Error(err)
		}
		target, closeAll, err := Discover(m.Point)
		if err != nil {
			t.Fatal(err)
		}
		target.Detach = []Detacher{x}
		report, err := (&Pipeline{Stages: TreeStages()}).Run(t.Context(), target, nil)
		if err := errors.Join(err, closeAll()); err != nil || !report.Released {
			t.Errorf("%s: %v", fs, err)
		}
		if err := unix.Unmount("/dev", 0); err != nil { // a program would have /dev/null there open
			t.Fatal(err)
		}
	}
}

// TestEveryRequiredProof leaves each stage out in turn: the target is not released then, unless the
// stage's proof follows from others.
func TestEveryRequiredProof(t *testing.T) {
	all := DiskStages()
	var held []Proof
	for _, s := range all {
		if s.proves != "" {
			held = append(held, s.proves)
		}
	}
	if !releases(held) {
		t.Error("all stages of a release do not release")
	}
	for i, p := range held {
		without := slices.Delete(slices.Clone(held), i, i+1)
		if got, want := releases(without), p == NoHolders || p == NotFrozen; got != want {
			t.Errorf("without the proof %s: released %v", p, got)
		}
	}
	if releases(nil) {
		t.Error("released with no proof")
	}
}
