package holders

import (
	"context"
	"slices"

	"installer/disk/mounts"
)

// Unused searches for anybody who uses the file systems of a tree of mounts, whatever mount of them
// is used: the mounts themselves, and their copies in this and in other namespaces, are no use. A
// destructive step needs its verdict Free. Where something could not be seen, the verdict is Free
// only if the kernel's own tables have no reference to any of the file systems.
func Unused(ctx context.Context, tree []mounts.Mount) (Report, error) {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return Report{}, err
	}
	var target Target
	for _, m := range tree {
		target.AddSuperblock(m)
		if err := target.AddStatDevice(m.Point); err != nil {
			return Report{}, err
		}
	}
	for _, m := range snapshot.All {
		if target.onDevice(m.Dev) {
			target.Mounts = append(target.Mounts, m.ID)
		}
	}
	report, err := Scan(ctx, target)
	if err != nil {
		return report, err
	}
	// A mount that stands on the target uses no file of it, nor does a namespace with a copy.
	report.Holders = slices.DeleteFunc(report.Holders, func(h Holder) bool { return h.Class == MountClass || h.Class == Namespace })
	report.judge()
	if report.Verdict != Unknown {
		return report, nil
	}
	err = report.askTable(ctx, snapshot, census.uses, tree...)
	report.judge()
	return report, err
}
