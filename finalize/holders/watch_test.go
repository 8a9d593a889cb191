package holders

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/tests/kit"
	"installer/tests/targettest"
)

// TestWatch has a holder that comes and goes, and then a target that is unmounted in use, whose mount
// is none of the holders.
func TestWatch(t *testing.T) {
	x := targettest.New(t, "ext4")
	var helper *kit.Child
	var seen []Verdict
	ticks := make(chan time.Time)
	close(ticks) // each search follows the one before at once
	err := Watch(t.Context(), x.Dir, ticks, func(r Report) (bool, error) {
		if n := len(seen); n == 0 || seen[n-1] != r.Verdict {
			seen = append(seen, r.Verdict)
		}
		switch {
		case helper == nil:
			helper = targettest.Hold(t, "cwd", x.Path("dir"))
		case r.Verdict == Held && x.IsMounted():
			if len(r.Holders) != 1 || r.Holders[0].Class != Cwd || r.Holders[0].PID != helper.PID {
				t.Errorf("%v", r.Holders)
			}
			if err := unix.Unmount(x.Dir, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		case r.Verdict == Held:
			if len(r.Holders) != 1 || r.Holders[0].PID != helper.PID {
				t.Errorf("unmounted in use: %v", r.Holders)
			}
			helper.Stop()
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil || len(seen) != 3 || seen[0] != Free || seen[1] != Held || seen[2] != Free {
		t.Errorf("verdicts %v, %v", seen, err)
	}
}
