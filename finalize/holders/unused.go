package holders

import (
	"context"
	"fmt"
	"slices"

	"installer/finalize/mounts"
)

// Unused searches for anybody who uses the file systems of a tree of mounts, whatever mount of them
// is used: the mounts themselves, and their copies in this and in other namespaces, are no use. A
// destructive step needs its verdict Free. Where something could not be seen, the kernel is asked
// about every mount: Free then means that it counts no reference to any.
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
	var all []placed
	for ns, m := range snapshot.All {
		if target.onDevice(m.Dev) {
			all = append(all, placed{ns, m})
			target.Mounts = append(target.Mounts, m.ID)
		}
	}
	report, err := Scan(ctx, target)
	if err != nil {
		return report, err
	}
	// A mount that stands on the target uses no file of it.
	report.Holders = slices.DeleteFunc(report.Holders, func(h Holder) bool { return h.Class == MountClass })
	report.judge()
	if report.Verdict != Unknown {
		return report, nil
	}
	return report, report.askAbout(ctx, snapshot, all)
}

// placed is a mount with its namespace.
type placed struct {
	ns    mounts.Namespace
	mount mounts.Mount
}

// askAbout asks the kernel about mounts, and makes the verdict of its answers. A mount that carries
// another one of the target is referred to by that, so that nothing can be asked about it.
func (r *Report) askAbout(ctx context.Context, snapshot *mounts.Snapshot, all []placed) error {
	carries := map[int]bool{}
	for _, m := range snapshot.All {
		carries[m.Parent] = true
	}
	r.Probed = Unreferenced
	for _, l := range all {
		place := fmt.Sprintf("the references to %s%s", l.mount.Point, inNamespace(l.ns))
		if carries[l.mount.ID] {
			r.Probed = ""
			continue
		}
		referenced, err := referencedIn(ctx, l)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.Probed = ""
			r.unseen(Unseen{Spot: Answers, Subject: place, Reason: err.Error(), Count: 1})
		case referenced:
			r.Probed = IsReferenced
			return nil
		}
	}
	if r.Probed == Unreferenced && snapshot.Complete && len(r.Holders) == 0 {
		r.Verdict = Free
	}
	return nil
}

func referencedIn(ctx context.Context, l placed) (bool, error) {
	if l.ns.Own {
		return mounts.Referenced(ctx, l.mount)
	}
	return mounts.ReferencedIn(ctx, l.ns, l.mount)
}

// BlindToInit reports whether the search saw everything but process 1, which may have more
// privileges than root in this place.
func (r *Report) BlindToInit() bool {
	for _, u := range r.Unseen {
		if u.Spot != Processes || len(u.Processes) != 1 || u.Processes[0] != 1 {
			return false
		}
	}
	return len(r.Holders) == 0 && r.Probed != IsReferenced
}
