package holders

import (
	"context"
	"time"

	"installer/disk/mounts"
)

// Watch searches for the holders of the target that a path leads to, at once and at each tick, and
// hands each report to visit, until visit returns false or the context ends. It asks no question
// that others would notice: the device is not opened, and the mount not probed.
func Watch(ctx context.Context, path string, ticks <-chan time.Time, visit func(Report) (more bool, err error)) error {
	subject, err := Resolve(ctx, path)
	if err != nil {
		return err
	}
	for {
		report, err := searchOnce(ctx, subject)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if more, err := visit(report); err != nil || !more {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

// searchOnce searches for holders of a target. Its mount may have gone meanwhile, and another one may
// have its number.
func searchOnce(ctx context.Context, subject Subject) (Report, error) {
	if subject.Mount != nil {
		snapshot, err := mounts.List(ctx)
		if err != nil {
			return Report{}, err
		}
		there := false
		for _, m := range snapshot.All {
			there = there || m.ID == subject.Mount.ID && m.Dev == subject.Mount.Dev && m.Point == subject.Mount.Point
		}
		if !there {
			subject.Target.Mounts = nil
		}
	}
	s, err := newScan(ctx, subject.Target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	report, err := s.search(ctx)
	if err != nil {
		return Report{}, err
	}
	report.unseen(subject.unseen...)
	report.judge()
	return report, nil
}
