package mounts_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// inodeOf returns the inode of the mount namespace that a thread is in.
func inodeOf(t *testing.T, task string) uint64 {
	t.Helper()
	link, err := os.Readlink(task + "/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	inode, err := strconv.ParseUint(strings.Trim(link, "mnt:[]"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return inode
}

// threadNamespace returns the namespace of that thread of a process which is in another one than
// the process.
func threadNamespace(t *testing.T, pid int) uint64 {
	t.Helper()
	process := "/proc/" + strconv.Itoa(pid)
	tasks, err := os.ReadDir(process + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if inode := inodeOf(t, process+"/task/"+task.Name()); inode != inodeOf(t, process) {
			return inode
		}
	}
	t.Fatal("all threads are in the namespace of the process")
	return 0
}

func byInode(s *mounts.Snapshot, inode uint64) (mounts.Namespace, bool) {
	for _, ns := range s.Namespaces {
		if ns.Inode == inode {
			return ns, true
		}
	}
	return mounts.Namespace{}, false
}

// TestListFromProc compares the list made of /proc with the kernel's enumeration: the same mounts
// in every namespace with a task in it.
func TestListFromProc(t *testing.T) {
	m := tmpfs(t, t.TempDir()+"/m")
	process := inodeOf(t, "/proc/"+strconv.Itoa(targettest.Hold(t, "clone-ns").PID))
	thread := threadNamespace(t, targettest.Hold(t, "thread-ns").PID)
	targettest.Hold(t, "ns-fd")
	full, err := mounts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	part, err := mounts.ListFromProc(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if part.Complete {
		t.Error("the list of /proc is complete")
	}
	for _, inode := range []uint64{process, thread, part.Own().Inode} {
		got, ok := byInode(part, inode)
		want, known := byInode(full, inode)
		if !ok || !known || len(got.Mounts) != len(want.Mounts) || got.Own != want.Own {
			t.Fatalf("namespace %d: %v with %d mounts, want %v with %d", inode, ok, len(got.Mounts), known, len(want.Mounts))
		}
		for _, w := range want.Mounts {
			g, ok := mounts.Find(got.Mounts, w.ID)
			if !ok || g.Dev != w.Dev || g.Root != w.Root || g.Point != w.Point || g.Parent != w.Parent ||
				g.FSType != w.FSType || g.Source != w.Source || g.Shared != w.Shared || g.Master != w.Master {
				t.Errorf("%+v, want %+v", g, w)
			}
		}
	}
	copies := func(s *mounts.Snapshot) (n int) {
		for _, other := range s.All {
			if other.Dev == m.Dev {
				n++
			}
		}
		return n
	}
	if all, seen := copies(full), copies(part); all != 4 || seen != 3 {
		t.Errorf("%d copies of the mount in all, %d with a task, want 4 and 3", all, seen)
	}
}
