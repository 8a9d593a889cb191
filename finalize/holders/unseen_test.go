package holders

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// TestUnlisted has kernels that do not list the namespaces: the advice fits the reason.
func TestUnlisted(t *testing.T) {
	for _, c := range []struct {
		errno  error
		spot   BlindSpot
		advice string
	}{{unix.ENOTTY, OldKernel, "Linux 6.12"}, {unix.EPERM, OtherNamespaces, "as root"}} {
		s := &scan{snapshot: &mounts.Snapshot{Unlisted: fmt.Errorf("listing: %w", c.errno)}}
		list := s.unseen()
		if len(list) != 1 || list[0].Spot != c.spot || !strings.Contains(HowToSee(list), c.advice) || NotSeen(list) == "" {
			t.Errorf("%v: %+v, %s", c.errno, list, HowToSee(list))
		}
	}
}
