package holders

import (
	"path/filepath"
	"slices"
	"testing"

	"installer/tests/targettest"
)

// TestFrozenIsHeld asks about a frozen file system.
func TestFrozenIsHeld(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
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

// TestFrozenAndUnmounted has the superblock that outlives all its mounts with no holder in user
// space: only the device shows it.
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
		if len(r.Unseen) > 0 { // the kernel is not blamed after a search with blind spots
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

// TestClaim has somebody else's exclusive open of an unmounted device, and an open of it that
// claims nothing.
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
