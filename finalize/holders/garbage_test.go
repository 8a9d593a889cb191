package holders

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// leaveGarbage makes a file of the target garbage in sockets until the kernel has not yet collected
// it: any other process that closes a socket makes it do so.
func leaveGarbage(t *testing.T, x *targettest.Target) {
	t.Helper()
	for range 50 {
		targettest.Hold(t, "garbage", x.Path("file")).Stop()
		if referenced, err := mounts.Referenced(t.Context(), x.At()); err != nil {
			t.Fatal(err)
		} else if referenced {
			return
		}
	}
	t.Fatal("the kernel collected the garbage at once every time")
}

// TestSocketGarbage has a file that is open in no process, not even under way to one: it must not
// look free as long as the kernel keeps it.
func TestSocketGarbage(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		leaveGarbage(t, x)
		r := scanTarget(t, x)
		if r.Probed == IsReferenced && (r.Verdict == Free || r.UnownedSockets == 0) {
			t.Errorf("%s: referenced, but verdict %s with %d unowned sockets", fs, r.Verdict, r.UnownedSockets)
		}
		if h, ok := findClass(r, Kernel); ok && !strings.Contains(h.Evidence, "unix sockets are open in no process") {
			t.Errorf("%s: %+v", fs, h)
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd) // when some unix socket is closed, the kernel collects in the background; see unix(7)
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			referenced, err := mounts.Referenced(t.Context(), x.At())
			if err != nil {
				t.Fatal(err)
			}
			if !referenced {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: closing a socket did not make the kernel collect the garbage", fs)
			}
		}
		wantFree(t, x)
	}
}
