package holders

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/tests/targettest"
)

// TestNetworkOfEndedProcess has a process with a network namespace of its own that ends during the
// search: before the namespace was opened, it was not seen; after that, its end is of no matter.
func TestNetworkOfEndedProcess(t *testing.T) {
	x := targettest.New(t, "ext4")
	for _, early := range []bool{true, false} {
		s, err := newScan(t.Context(), MountTarget(x.At()))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		helper := targettest.Hold(t, "socket-net", x.Path("dir"))
		dir, err := unix.Open(fmt.Sprintf("/proc/%d", helper.PID), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(dir)
		ended := task{pid: helper.PID, tid: helper.PID, dir: dir}
		name, err := readLink(dir, "ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if early {
			helper.Stop()
		}
		s.openNetwork(name, ended, "ns/net")
		helper.Stop()
		if err := findForeignSockets(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		r := s.report(nil)
		unseen := strings.Contains(strings.Join(r.Unreadable, "\n"), name)
		if unseen != early || early && r.Verdict == Free || len(r.Holders) > 0 {
			t.Errorf("ended early: %v: verdict %s, %v, unseen %v", early, r.Verdict, r.Holders, r.Unseen)
		}
	}
}
