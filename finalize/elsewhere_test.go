package finalize

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/holders"
	"installer/tests/targettest"
)

// TestAllNamespaces releases targets that another namespace has a copy of: a holder, unless the
// release unmounts copies too.
func TestAllNamespaces(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		for _, kind := range []string{"clone-ns", "ns-fd"} {
			t.Run(fs+" "+kind, func(t *testing.T) {
				x := targettest.New(t, fs)
				helper := targettest.Hold(t, kind)
				target := targetOf(x)
				wantHeld(t, x, target, "prove-self-free", holders.Namespace, helper.PID)
				target.Copies = UnmountCopies
				report, err := (&Pipeline{Stages: DiskStages()}).Run(t.Context(), target, nil)
				if err != nil || !report.Released {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestReachedIsNoHolder has a copy in another namespace that goes along, as the
// mount that carries the mount point is shared with it.
func TestReachedIsNoHolder(t *testing.T) {
	for kind, flag := range map[string]uintptr{"ns-kept": unix.MS_SHARED, "ns-slave": unix.MS_SHARED} {
		parent := t.TempDir()
		if err := mounts.Make(mounts.Options{Source: "test", FSType: "tmpfs", Target: parent}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if m, err := mounts.At(parent); err != nil || mounts.Unmount(m) != nil {
				t.Errorf("taking %s down: %v", parent, err)
			}
		})
		if err := mounts.SetPropagation(parent, flag); err != nil {
			t.Fatal(err)
		}
		x := targettest.NewAt(t, "ext4", parent+"/mnt")
		helper := targettest.Hold(t, kind)
		report, err := (&Pipeline{Stages: DiskStages()}).Run(t.Context(), targetOf(x), nil)
		if err != nil || !report.Released {
			t.Error(fmt.Errorf("%s: %w", kind, err))
		}
		helper.Stop()
	}
}
