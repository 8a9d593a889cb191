package holders

import (
	"testing"

	"installer/tests/targettest"
)

// TestLoopOverDevice has a loop device over the target's own device, which keeps the device, and
// not the mount.
func TestLoopOverDevice(t *testing.T) {
	x := targettest.New(t, "ext4")
	upper, file := targettest.AttachLoop(t, x.Loop)
	if r := examine(t, x.Dir); r.Verdict != Free { // it does not keep the mount
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
	run(t, "umount", x.Dir)
	if h, ok := findClass(examine(t, x.Loop), Loop); !ok || h.Path != x.Loop {
		t.Errorf("%s: %+v", upper, h)
	}
	file.Close()
	if r := examine(t, x.Loop); r.Verdict != Free {
		t.Errorf("verdict %s, %v", r.Verdict, r.Holders)
	}
}
