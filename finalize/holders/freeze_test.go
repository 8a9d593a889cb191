package holders

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/finalize/internal/targettest"
)

// create makes a file on the target, which waits while it is frozen.
func create(x *targettest.Target, name string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(x.Path(name), []byte("x"), 0o600) }()
	return done
}

// TestWatchdogThaws has a freezer that is stuck after the freeze: the watchdog
// thaws, so that a writer, who could not even be killed, goes on.
func TestWatchdogThaws(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		dir, err := os.Open(x.Dir)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = freezeThaw(dir, 50*time.Millisecond, func() {
			if err := FreezeThaw(dir); !errors.Is(err, unix.EBUSY) {
				t.Errorf("%s is not frozen: %v", fs, err)
			}
			if err := <-create(x, "written while frozen"); err != nil {
				t.Errorf("%s: %v", fs, err)
			}
		})
		if took := time.Since(began); err != nil || took < 50*time.Millisecond {
			t.Errorf("%s: %v after %v", fs, err, took)
		}
		dir.Close()
		wantThawed(t, x)
	}
}

// TestThawsOnPanic has a freezer that fails beyond any error.
func TestThawsOnPanic(t *testing.T) {
	x := targettest.New(t, "xfs")
	dir, err := os.Open(x.Dir)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = freezeThaw(dir, freezeLimit, func() { panic("a defect") })
	}()
	dir.Close()
	wantThawed(t, x)
}

func wantThawed(t *testing.T, x *targettest.Target) {
	t.Helper()
	select {
	case err := <-create(x, "written afterwards"):
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		run(t, "fsfreeze", "--unfreeze", x.Dir) // or the test could not be ended
		t.Error("it is still frozen")
	}
}

// TestFrozenIsHeld asks about a frozen file system, of the types that show it.
func TestFrozenIsHeld(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		x := targettest.New(t, fs)
		targettest.Hold(t, "freeze", x.Dir).Stop()
		r, err := Examine(t.Context(), x.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(r.Searched, Frozen) {
			t.Errorf("%s: a freeze was not looked for", fs)
		}
		if h, ok := findClass(r, Frozen); !ok || r.Verdict != Held || h.Path != x.Dir {
			t.Errorf("%s: verdict %s, %v", fs, r.Verdict, r.Holders)
		}
		run(t, "fsfreeze", "--unfreeze", x.Dir)
		if r, err := Examine(t.Context(), x.Dir); err != nil || r.Verdict != Free {
			t.Errorf("%s: verdict %s, %v, %v", fs, r.Verdict, r.Holders, err)
		}
	}
}

// TestFrozenAndUnmounted has the super block that outlives all its mounts with
// no holder in user space: only the device shows it.
func TestFrozenAndUnmounted(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		targettest.Hold(t, "freeze", x.Dir).Stop()
		run(t, "umount", x.Dir)
		r, err := Examine(t.Context(), x.Loop)
		if err != nil {
			t.Fatal(err)
		}
		class, verdict := Kernel, KernelHeld
		if len(r.Unseen) > 0 { // the kernel is not blamed for what could not be seen
			class, verdict = OutOfSight, Held
		}
		h, ok := findClass(r, class)
		if !ok || r.Verdict != verdict || h.Remedy == "" || h.Evidence == "" {
			t.Errorf("%s: verdict %s, %v, unseen %v", fs, r.Verdict, r.Holders, r.Unseen)
		}
		x.Mount()
		run(t, "fsfreeze", "--unfreeze", x.Dir)
		run(t, "umount", x.Dir)
		if r, err := Examine(t.Context(), x.Loop); err != nil || r.Verdict != Free {
			t.Errorf("%s: verdict %s, %v, %v", fs, r.Verdict, r.Holders, err)
		}
	}
}

// TestClaim has somebody else's exclusive open of an unmounted device, and an
// open of it that claims nothing.
func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	targettest.MakeImage(t, "ext4", path)
	loop, file := targettest.AttachLoop(t, path)
	defer file.Close()
	examine := func() Report {
		r, err := Examine(t.Context(), loop)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain := targettest.Hold(t, "plain-device", loop)
	if r := examine(); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	helper := targettest.Hold(t, "claim", loop)
	// Two processes have it open: either may have made the claim.
	r := examine()
	h, ok := find(r, BlockClaim, helper.PID)
	if claim, certain := find(r, BlockClaim, 0); !ok || !h.Suspect || !certain || claim.Suspect || r.Verdict != Held {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	plain.Stop()
	r = examine()
	if h, ok := find(r, BlockClaim, helper.PID); !ok || h.Suspect || len(r.Holders) != 1 || h.Remedy == "" {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	helper.Stop()
	if r := examine(); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
}
