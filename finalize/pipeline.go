package finalize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// Pipeline runs stages over a target.
type Pipeline struct {
	Stages []Stage
}

// Release is a target on its way through the stages.
type Release struct {
	Target  Target
	Root    mounts.Mount   // the target's mount
	Tree    []mounts.Mount // it and all that stands on it, leaf first
	systems []filesystem   // the superblocks of the tree that are the target's, in the order of unmounting
	binds   []Bind         // the mounts of the tree whose superblocks are not
	held    holders.Target
	reached []mounts.Mount    // in other namespaces, which go with the tree
	copies  map[mountKey]bool // in other namespaces, which are to be unmounted there
	cut     map[int]bool      // mounts of the tree that are to be made private before the unmount
	blind   bool              // another PID namespace may have the file systems
	gone    bool              // everything is unmounted

	changed []mounts.Mount // made read-only by us, as they were before
}

// Run releases the target. After a stage that fails none is run, and the report lists the rest as
// not run; a stage that cannot prove its statement ends nothing. The report is never nil. observer,
// which may be nil, is called with each stage as it ends.
//
// A target that something holds gives a *HeldError, statements that were not proven an
// *UnprovenError, anything else that went wrong a *StageError.
func (p *Pipeline) Run(ctx context.Context, t Target, observer func(StageResult)) (*Report, error) {
	report := &Report{Version: reportVersion, Mountpoint: t.Mountpoint}
	for _, d := range t.Devices {
		report.Devices = append(report.Devices, d.Path)
	}
	release, err := begin(ctx, t)
	for _, stage := range p.Stages {
		result := StageResult{Name: stage.name, Status: NotRun}
		if err == nil {
			result, err = runStage(ctx, stage, release)
			report.add(stage, result)
			if observer != nil {
				observer(result)
			}
		}
		report.Stages = append(report.Stages, result)
	}
	if release != nil {
		report.Binds = release.binds
		if err != nil {
			err = errors.Join(err, release.restore())
		}
	}
	if err == nil && len(report.Unproven) > 0 {
		err = &UnprovenError{Unmounted: release.gone, Why: report.Unproven}
	}
	report.Released = err == nil && releases(report.Proven)
	return report, err
}

// add records the proof of a stage.
func (r *Report) add(s Stage, result StageResult) {
	if u, ok := result.Evidence.(unprover); ok {
		r.Unproven = append(r.Unproven, u.NotProven()...)
	}
	if s.proves != "" && (result.Status == OK || result.Status == Note) {
		r.Proven = append(r.Proven, s.proves)
	}
}

// begin finds the target's mount before anything is changed.
func begin(ctx context.Context, t Target) (*Release, error) {
	fail := func(err error) (*Release, error) { return nil, &StageError{"finding the target", err} }
	root, err := mounts.At(t.Mountpoint)
	if err != nil {
		return fail(err)
	}
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return fail(err)
	}
	r := &Release{Target: t, Root: root}
	if r.Tree, err = mounts.LeafFirst(snapshot.Own().Mounts, root.ID); err != nil {
		return fail(err)
	}
	r.findReached(snapshot)
	r.sortTree(snapshot)
	if t.Copies == UnmountCopies {
		r.noteCopies(snapshot)
	}
	if err := r.matchDevices(); err != nil {
		return fail(err)
	}
	if err := r.describe(snapshot); err != nil {
		return fail(err)
	}
	return r, nil
}

// matchDevices makes sure that every file system of the target that is stored on devices has these
// in the target: a file system without could not be proven to be released. The devices of others
// are dropped.
func (r *Release) matchDevices() error {
	var devices []Device
	for _, f := range r.systems {
		if f.kind != stored {
			continue
		}
		if err := r.Target.missing[f.Dev]; err != nil {
			return err
		}
		numbers, err := holders.BlockNumbers(f.Mount)
		if err != nil {
			return err
		}
		for _, number := range numbers {
			at := slices.IndexFunc(r.Target.Devices, func(d Device) bool { return d.number() == number })
			if at < 0 {
				return fmt.Errorf("the %s on %s is on device %s, which is not among those of the target", f.FSType, f.Point, number)
			}
			d := r.Target.Devices[at]
			if d.FSType != f.FSType {
				return fmt.Errorf("%s is mounted as %s, but %s is said to be %s", f.Point, f.FSType, d.Path, d.FSType)
			}
			devices = append(devices, d)
		}
	}
	r.Target.Devices = devices
	return nil
}

func runStage(ctx context.Context, s Stage, r *Release) (StageResult, error) {
	result := StageResult{Name: s.name, Status: OK, Start: time.Now()}
	err := ctx.Err()
	if err == nil {
		result.Evidence, err = s.run(ctx, r)
	}
	result.Seconds = time.Since(result.Start).Seconds()
	if result.Evidence != nil {
		result.Summary = result.Evidence.Line()
	}
	if n, ok := result.Evidence.(noter); ok && n.IsNote() {
		result.Status = Note
	}
	if u, ok := result.Evidence.(unprover); ok && len(u.NotProven()) > 0 {
		result.Status = NotProven
	}
	if err != nil {
		err = named(s.name, err)
		result.Status, result.Error = Failed, err.Error()
		if held := (*HeldError)(nil); errors.As(err, &held) {
			result.Holders = held.Holders
		}
	}
	return result, err
}

// named gives an error the stage's name.
func named(stage string, err error) error {
	var held *HeldError
	if errors.As(err, &held) {
		held.Stage = stage
		return err
	}
	return &StageError{stage, err}
}
