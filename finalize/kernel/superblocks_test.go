package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

func superblockOf(t *testing.T, d mounts.DevNum) (s Superblock, found bool) {
	t.Helper()
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if s, found, err = v.Superblock(d); err != nil {
		t.Fatal(err)
	}
	return s, found
}

// TestSuperblocksListed wants a superblock for each mount of the own namespace.
func TestSuperblocksListed(t *testing.T) {
	list, err := mounts.OwnMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if s, found := superblockOf(t, m.Dev); s.Type != m.FSType {
			t.Errorf("%s: superblock %v of type %q: %v", m.Line(), m.Dev, s.Type, found)
		}
	}
}

// TestSuperblockWithoutMount has superblocks that live on when they are unmounted.
func TestSuperblockWithoutMount(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		for kind, want := range map[string]Superblock{
			"fs-context":    {Active: 1, Others: 1},
			"freeze":        {Active: 1, Others: 1, Frozen: true},
			"detached-tree": {Active: 1, Others: 0},
		} {
			x := targettest.New(t, fs)
			dev := x.At().Dev
			if s, ok := superblockOf(t, dev); !ok || s.Active != 1 || s.Others != 0 || len(s.Mounts) != 1 || s.Type != fs || s.Count < 1 {
				t.Errorf("%s mounted: %+v", fs, s)
			}
			h := targettest.Hold(t, kind, x.Dir)
			if err := unix.Unmount(x.Dir, 0); err != nil {
				t.Fatal(err)
			}
			s, ok := superblockOf(t, dev)
			if !ok || s.Active != want.Active || s.Others != want.Others || s.Frozen != want.Frozen || len(s.Mounts) != want.Active-want.Others {
				t.Errorf("%s %s: %+v, want %+v", fs, kind, s, want)
			}
			checkUsesOf(t, dev, kind, h.PID)
			checkAccount(t, dev, map[string]string{
				"fs-context": "s_active 1, mounts 0, fs contexts 1", "freeze": "s_active 1, mounts 0, frozen",
				"detached-tree": "s_active 1, mounts 1",
			}[kind])
			h.Stop()
			if kind == "freeze" {
				x.Mount()
				run(t, "fsfreeze", "--unfreeze", x.Dir)
				if err := unix.Unmount(x.Dir, 0); err != nil {
					t.Fatal(err)
				}
			}
			if s, ok := superblockOf(t, dev); ok {
				t.Errorf("%s %s has ended: %+v", fs, kind, s)
			}
		}
	}
}

// checkUsesOf wants the users of a file system that is mounted nowhere.
func checkUsesOf(t *testing.T, dev mounts.DevNum, kind string, pid int) {
	t.Helper()
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	users, err := v.UsesOf(dev)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Kind{"fs-context": FSContext, "detached-tree": DetachedMount}[kind]
	if want == "" {
		if len(users.Uses) > 0 {
			t.Errorf("%s: %+v", kind, users.Uses)
		}
		return
	}
	if len(users.Uses) != 1 || users.Uses[0].Kind != want || users.Uses[0].Process != pid {
		t.Errorf("%s by process %d: %+v", kind, pid, users.Uses)
	}
	if users, err := v.UsesOf(mounts.DevNum{Major: 4000, Minor: 1}); err != nil || len(users.Uses) > 0 || users.Processes == 0 {
		t.Errorf("a device without a superblock: %+v, %v", users, err)
	}
}

func checkAccount(t *testing.T, dev mounts.DevNum, want string) {
	t.Helper()
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a, found, err := v.Account(dev)
	if err != nil || !found || a.String() != want || a.Unexplained != 0 {
		t.Errorf("%+v, %v, %v, want %s", a, found, err, want)
	}
	if a, found, err := v.Account(mounts.DevNum{Major: 4000, Minor: 1}); found || err != nil {
		t.Errorf("a device without a superblock: %+v, %v", a, err)
	}
}

func TestAccountText(t *testing.T) {
	for want, a := range map[string]Account{
		"s_active 2, mounts 0: 2 references are the kernel's own":                      {Active: 2, Unexplained: 2},
		"s_active 3, mounts 0, frozen, fs contexts 1: 1 reference is the kernel's own": {Active: 3, Frozen: true, Contexts: 1, Unexplained: 1},
	} {
		if got := a.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestAccountUnexplained has an fs context that is under way in a socket, where no process has it
// open: it is a number.
func TestAccountUnexplained(t *testing.T) {
	x := targettest.New(t, "ext4")
	dev := x.At().Dev
	h := targettest.Hold(t, "context-in-flight", x.Dir)
	checkUnexplained(t, dev, 1)
	h.Stop()
	checkUnexplained(t, dev, 0)
}

func checkUnexplained(t *testing.T, dev mounts.DevNum, want int) {
	t.Helper()
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if a, found, err := v.Account(dev); err != nil || !found || a.Unexplained != want {
		t.Errorf("%+v, %v, %v, want %d unexplained", a, found, err, want)
	}
}
