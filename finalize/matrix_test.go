package finalize

import (
	"os"
	"os/exec"
	"testing"

	"installer/finalize/holders"
	"installer/tests/targettest"
)

// TestEveryProcessHolderStopsTheRelease makes holders in processes: the release
// refuses, leaves the mount as it was, and succeeds at once when they are gone.
func TestEveryProcessHolderStopsTheRelease(t *testing.T) {
	cases := []struct {
		kind, name string
		class      holders.Class
		stage      string
	}{
		// First, as the kernel gives a ring back some time after its process has ended.
		{"ring", "file", holders.IOUring, "prove-self-free"},
		{"fd", "file", holders.FD, "prove-self-free"},
		{"fd-path", "dir", holders.FD, "prove-self-free"},
		{"map", "file", holders.Map, "prove-self-free"},
		{"root", "dir", holders.Root, "prove-self-free"},
		{"thread-cwd", "dir", holders.Cwd, "prove-self-free"},
		{"thread-fd", "file", holders.FD, "prove-self-free"},
		{"zombie-map", "file", holders.Map, "prove-self-free"},
		{"thread-ns", "", holders.Namespace, "prove-self-free"},
		{"detached-tree", "", holders.DetachedMount, "prove-self-free"},
		{"in-flight", "file", holders.InFlight, "prove-self-free"},
		{"fanotify", "", holders.Fanotify, "prove-self-free"},
		{"socket", "dir", holders.UnixSocket, "prove-no-holders"},
	}
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, c := range cases {
			t.Run(fs+" "+c.kind, func(t *testing.T) {
				helper := targettest.Hold(t, c.kind, x.Path(c.name))
				wantHeld(t, x, targetOf(x), c.stage, c.class, helper.PID)
				if err := os.WriteFile(x.Path("still writable"), nil, 0o600); err != nil {
					t.Errorf("the mount is not as it was: %v", err)
				}
				helper.Stop()
			})
		}
		release(t, x)
	}
}

// TestHoldersWithoutAProcess makes the ones that only the kernel's tables show.
func TestHoldersWithoutAProcess(t *testing.T) {
	x := targettest.New(t, "ext4")
	if err := os.Truncate(x.Path("file"), 1<<20); err != nil {
		t.Fatal(err)
	}
	_, loop := targettest.AttachLoop(t, x.Path("file"))
	wantHeld(t, x, targetOf(x), "remount-read-only", holders.Loop, 0)
	loop.Close()
	bind := t.TempDir()
	if out, err := exec.Command("mount", "--bind", x.Path("dir"), bind).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantHeld(t, x, targetOf(x), "prove-no-holders", holders.MountClass, 0)
	if out, err := exec.Command("umount", bind).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	release(t, x)
}

// TestContextIsFoundBySuperBlock has a holder that no table attributes: the unmount succeeds, and the
// superblock lives.
func TestContextIsFoundBySuperBlock(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		helper := targettest.Hold(t, "context-in-flight", x.Dir)
		report, err := (&Pipeline{Stages: DiskStages()}).Run(t.Context(), targetOf(x), nil)
		failed := statuses(report, Failed)
		if err == nil || report.Released || len(failed) != 1 || failed[0] != "prove-released" {
			t.Errorf("%s: %v, failed %v", fs, err, failed)
		}
		helper.Stop()
		x.Mount()
		release(t, x)
	}
}
