package mounted

import (
	"errors"
	"strings"
	"testing"

	"installer/disk"
	"installer/finalize/mounts"
)

// A place for a boot loader for BIOS needs a GPT with a partition of its own.
func TestNoBIOS(t *testing.T) {
	m := &Mounted{tree: &Tree{Root: Filesystem{Mount: mounts.Mount{Point: "/mnt"}}}, noPlace: errors.New("no partition")}
	if got := m.noBIOS(); !strings.Contains(got, "/mnt must be on a partition") || !strings.Contains(got, "(no partition)") {
		t.Errorf("without a partition: %q", got)
	}
	m.place, m.noPlace = &Place{Disk: "/dev/vda"}, nil
	if got := m.noBIOS(); !strings.Contains(got, "/dev/vda needs a BIOS boot partition") {
		t.Errorf("without a BIOS boot partition: %q", got)
	}
	m.place.BIOSBoot = &disk.Partition{}
	if got := m.noBIOS(); got != "" {
		t.Errorf("with a BIOS boot partition: %q", got)
	}
}
