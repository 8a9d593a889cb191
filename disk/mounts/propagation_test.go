package mounts_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// inOther returns the mounts of a device in the namespaces of others.
func inOther(t *testing.T, dev mounts.DevNum) (found []mounts.Mount, in mounts.Namespace, s *mounts.Snapshot) {
	t.Helper()
	s, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for ns, m := range s.All {
		if m.Dev == dev && !ns.Own {
			found, in = append(found, m), ns
		}
	}
	return found, in, s
}

func propagation(t *testing.T, path string, flags uintptr) {
	t.Helper()
	if err := mounts.SetPropagation(path, flags); err != nil {
		t.Fatal(err)
	}
}

// TestReachedAgreesWithTheKernel tries the combinations of how the parent and the mount propagate
// and how the other namespace was cut off.
func TestReachedAgreesWithTheKernel(t *testing.T) {
	modes := map[string]uintptr{"shared": unix.MS_SHARED, "private": unix.MS_PRIVATE}
	inner := map[string]string{"unchanged": "ns-kept", "slave": "ns-slave", "private": "ns-private"}
	for parentMode, parentFlag := range modes {
		for mountMode, mountFlag := range modes {
			for innerMode, kind := range inner {
				t.Run(fmt.Sprintf("%s-%s-%s", parentMode, mountMode, innerMode), func(t *testing.T) {
					parent := tmpfs(t, t.TempDir()+"/parent")
					propagation(t, parent.Point, parentFlag)
					m := tmpfs(t, parent.Point+"/m")
					propagation(t, m.Point, mountFlag)
					helper := targettest.Hold(t, kind)
					before, _, snapshot := inOther(t, m.Dev)
					if len(before) != 1 {
						t.Fatalf("the other namespace has %v", before)
					}
					reached := mounts.Reached(snapshot, []mounts.Mount{at(t, m.Point)})
					if err := mounts.Unmount(at(t, m.Point)); err != nil {
						t.Fatal(err)
					}
					after, _, _ := inOther(t, m.Dev)
					if gone := len(after) == 0; gone != (len(reached) == 1) {
						t.Errorf("reached %v, but gone %v", reached, gone)
					}
					if want := parentMode == "shared" && innerMode != "private"; want != (len(reached) == 1) {
						t.Errorf("reached %v, want %v", reached, want)
					}
					helper.Stop()
				})
			}
		}
	}
}

func TestUnmountIn(t *testing.T) {
	for _, kind := range []string{"clone-ns", "ns-fd", "thread-ns", "clone-ns on an old kernel", "thread-ns on an old kernel"} {
		for _, fs := range targettest.Filesystems() {
			x := targettest.New(t, fs)
			dev := x.At().Dev
			name, _, old := strings.Cut(kind, " ")
			targettest.Hold(t, name)
			found, ns, _ := inOther(t, dev)
			if old {
				ns.ID = 0
			}
			if len(found) != 1 {
				t.Fatalf("the other namespace has %v", found)
			}
			if err := mounts.UnmountIn(t.Context(), ns, found, nil); err != nil {
				t.Fatal(err)
			}
			if err := mounts.Unmount(x.At()); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(x.Loop, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Errorf("%s on %s: the superblock lives: %v", kind, fs, err)
				continue
			}
			unix.Close(fd)
		}
	}
}

// TestUnmountInContainer unmounts in a namespace as a container has it: its /proc shows no process
// of this PID namespace, and its directories may be locked.
func TestUnmountInContainer(t *testing.T) {
	x := targettest.New(t, "ext4")
	dev := x.At().Dev
	helper := targettest.Hold(t, "clone-ns")
	if out, err := exec.Command("nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", helper.PID),
		"mount", "-t", "tmpfs", "no processes", "/proc").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found, ns, _ := inOther(t, dev)
	if len(found) != 1 {
		t.Fatalf("the other namespace has %v", found)
	}
	if err := mounts.UnmountIn(t.Context(), ns, found, nil); err != nil {
		t.Fatal(err)
	}
	if left, _, _ := inOther(t, dev); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestNamespaceWithoutProcess distinguishes a namespace that a bind mount keeps from one that has
// ended.
func TestNamespaceWithoutProcess(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	file := t.TempDir() + "/ns"
	helper := targettest.HoldBound(t, file)
	found, ns, _ := inOther(t, m.Dev)
	helper.Stop()
	if err := mounts.UnmountIn(t.Context(), ns, nil, nil); err != nil {
		t.Errorf("kept by a bind mount: %v", err)
	}
	old := ns
	old.ID = 0
	if err := mounts.UnmountIn(t.Context(), old, nil, nil); err == nil || errors.Is(err, mounts.ErrEnded) {
		t.Errorf("on an old kernel, which may not know: %v", err)
	}
	if err := unix.Unmount(file, 0); err != nil {
		t.Fatal(err)
	}
	if err := mounts.UnmountIn(t.Context(), ns, found, nil); !errors.Is(err, mounts.ErrEnded) {
		t.Errorf("unmounting in a namespace that has ended: %v", err)
	}
}

func TestUnmountInLeavesNoTrace(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	targettest.Hold(t, "clone-ns")
	for range 30 {
		found, ns, _ := inOther(t, m.Dev)
		if err := mounts.UnmountIn(t.Context(), ns, nil, nil); err != nil || len(found) != 1 {
			t.Fatal(err, found)
		}
	}
	if link, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", os.Getpid())); err != nil || link == "/" {
		t.Errorf("the process's working directory is now %q, %v", link, err)
	}
}

// TestNewMountCalls shows the use of the newer calls for unmounting by file descriptor on the
// running kernel, so that the choice can be revisited: an open mount cannot be detached by its
// descriptor, but by moving it away.
func TestNewMountCalls(t *testing.T) {
	base := tmpfs(t, t.TempDir()+"/base")
	m := tmpfs(t, base.Point+"/m")
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Point, unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	detached, err := unix.OpenTree(unix.AT_FDCWD, base.Point, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(detached)
	const empty = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(fd, "", detached, "", empty); err != unix.EINVAL {
		t.Errorf("into a detached tree: %v; were it allowed, closing the tree would unmount by descriptor", err)
	}
	if err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", fd), unix.UMOUNT_NOFOLLOW); err != unix.EINVAL {
		t.Errorf("umount2 of the descriptor itself: %v", err)
	}
	grave := base.Point + "/grave"
	if err := os.Mkdir(grave, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, grave, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Errorf("to an attached place: %v", err)
	}
	unix.Close(fd)
	if err := mounts.Unmount(at(t, grave)); err != nil {
		t.Error(err)
	}
}
