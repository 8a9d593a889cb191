package wholedisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"installer/disk"
	"installer/finalize/holders"
)

// nameUsers completes the refusal of a disk that is in use. Package disk reads
// what /proc shows; a mount namespace may hold the disk with no process in it,
// which the full search for holders finds and names.
func nameUsers(ctx context.Context, refusal error) error {
	var inUse *disk.InUseError
	if !errors.As(refusal, &inUse) {
		return refusal
	}
	if st, err := os.Stat(inUse.Path); err != nil || st.Mode()&os.ModeDevice == 0 {
		return refusal // of a file, the search would look at the file system that it lies on
	}
	report, err := holders.Examine(ctx, inUse.Path)
	if err != nil {
		return errors.Join(refusal, fmt.Errorf("looking for who uses it: %w", err))
	}
	untold := untoldMounts(inUse.Uses, report.Holders)
	for _, h := range report.Holders {
		if concernsDevice(h, untold) {
			inUse.Uses = append(inUse.Uses, disk.Use{What: inUse.Path, Why: why(h), Remedy: h.Remedy})
		}
	}
	return refusal
}

// untoldMounts gives the namespaces of the mounts that no use names, with their
// mount points.
func untoldMounts(uses []disk.Use, found []holders.Holder) map[string][]string {
	untold := map[string][]string{}
	for _, h := range found {
		if h.Class == holders.MountClass && !told(uses, h) {
			untold[h.Namespace] = append(untold[h.Namespace], h.Path)
		}
	}
	return untold
}

// concernsDevice tells what uses the device from what uses files on it, which
// stand and fall with its mounts, and from what is told of already.
func concernsDevice(h holders.Holder, untold map[string][]string) bool {
	switch h.Class {
	case holders.MountClass:
		return slices.Contains(untold[h.Namespace], h.Path)
	case holders.Namespace: // of one that is told of, the mount and a process are
		return h.PID == 0 || len(untold[h.Namespace]) > 0
	case holders.DetachedMount, holders.FSContext, holders.Kernel:
		return true
	}
	return false
}

// told says whether a use names the mount point already.
func told(uses []disk.Use, h holders.Holder) bool {
	for _, u := range uses {
		if strings.HasPrefix(u.Why+" ", "mounted at "+h.Path+" ") && (h.Namespace == "") == !strings.Contains(u.Why, "namespace") {
			return true
		}
	}
	return false
}

func why(h holders.Holder) string {
	text := string(h.Class)
	if h.Path != "" {
		text += " " + h.Path
	}
	if h.Namespace != "" {
		text += " in " + h.Namespace
	}
	if h.PID != 0 {
		text += fmt.Sprintf(" by process %d (%s)", h.PID, h.Comm)
	}
	return text + " [" + h.Evidence + "]"
}
