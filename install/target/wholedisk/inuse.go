package wholedisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"installer/disk"
	"installer/finalize/holders"
)

// nameUsers completes the refusal of a disk that is in use. Package disk reads /proc; a mount
// namespace may hold the disk with no process in it, which the search for holders finds and names.
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
	unnamed := newMounts(inUse.Uses, report.Holders)
	for _, h := range report.Holders {
		if concernsDevice(h, unnamed) {
			inUse.Uses = append(inUse.Uses, disk.Use{Kind: disk.Held, What: inUse.Path, Why: why(h), Remedy: h.Remedy})
		}
	}
	return refusal
}

// newMounts returns the mounts that are in no use yet, by namespace. A namespace that no process is
// in has an entry, if an empty one: its keeper is in no use yet.
func newMounts(uses []disk.Use, found []holders.Holder) map[string][]string {
	list := map[string][]string{}
	for _, u := range uses {
		if u.Orphan != "" {
			list[u.Orphan] = nil
		}
	}
	for _, h := range found {
		if h.Class == holders.MountClass && !named(uses, h) {
			list[h.Namespace] = append(list[h.Namespace], h.Path)
		}
	}
	return list
}

// concernsDevice reports whether a holder uses the device itself. Users of files on it stand and
// fall with its mounts, and a mount that is named already needs no second line.
func concernsDevice(h holders.Holder, unnamed map[string][]string) bool {
	switch h.Class {
	case holders.MountClass:
		return slices.Contains(unnamed[h.Namespace], h.Path)
	case holders.Namespace: // of a mount that is named already, a process in its namespace is too
		_, kept := unnamed[h.Namespace]
		return h.PID == 0 || kept
	case holders.DetachedMount, holders.FSContext, holders.Kernel, holders.OutOfSight:
		return true
	}
	return false
}

// named reports whether a use names the mount point already.
func named(uses []disk.Use, h holders.Holder) bool {
	return slices.ContainsFunc(uses, func(u disk.Use) bool {
		return u.Kind == disk.Mounted && u.Mountpoint == h.Path && u.Foreign == (h.Namespace != "")
	})
}

// why describes a holder as the reason of a use.
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
