package finalize

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/tests/kit"
	"installer/tests/targettest"
)

// TestFreezerIsKilled has the process that freezes killed before it thaws: the other one thaws.
func TestFreezerIsKilled(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, readOnly := range []bool{false, true} {
			if err := mounts.SetReadOnly(x.At(), readOnly); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(x.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := freezeThaw(dir); err != nil {
				t.Errorf("%s: %v", fs, err)
			}
			killed := exec.Command("sh", "-c", "fsfreeze --freeze "+x.Dir+" && fsfreeze --freeze "+x.Dir+" 2>/dev/null || kill -KILL $$")
			if err := freezeBy(killed, dir); err == nil {
				t.Errorf("%s: a process that was killed has frozen and thawed", fs)
			}
			if frozen, err := mounts.Frozen(x.At()); frozen || err != nil {
				t.Errorf("%s, read-only %v: frozen %v, %v", fs, readOnly, frozen, err)
			}
			// Where this one is killed instead, the other goes on: it is in a session of its own.
			if err := freezeBy(exec.Command("true"), dir); !errors.Is(err, errNoFreezer) {
				t.Errorf("%s: a program that does not freeze: %v", fs, err)
			}
			kit.Run(t, "fsfreeze", "--freeze", x.Dir)
			if err := freezeThaw(dir); !errors.Is(err, unix.EBUSY) {
				t.Errorf("%s: frozen by somebody else: %v", fs, err)
			}
			kit.Run(t, "fsfreeze", "--unfreeze", x.Dir)
			dir.Close()
		}
	}
}
