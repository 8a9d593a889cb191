package finalize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"installer/finalize/holders"
	"installer/finalize/mounts"
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
	held    holders.Target
	reached []mounts.Mount // in other namespaces, which go with the tree
	async   []string       // kernel workers that were seen letting go of files

	changed []mounts.Mount // made read-only by us, as they were before
}

// Run releases the target. After a stage that fails none is run, and the report
// lists the rest as not run. The report is never nil. observer, which may be nil,
// is told of each stage as it ends.
//
// A target that something holds gives a *HeldError, anything else that went
// wrong a *StageError.
func (p *Pipeline) Run(ctx context.Context, t Target, observer func(StageResult)) (*Report, error) {
	report := &Report{Version: reportVersion, Mountpoint: t.Mountpoint}
	for _, d := range t.Devices {
		report.Devices = append(report.Devices, d.Path)
	}
	release, err := begin(ctx, t)
	for _, stage := range p.Stages {
		result := StageResult{Name: stage.Name, Status: NotRun}
		if err == nil {
			result, err = runStage(ctx, stage, release)
			if observer != nil {
				observer(result)
			}
		}
		report.Stages = append(report.Stages, result)
	}
	if err != nil && release != nil {
		err = errors.Join(err, release.restore())
	}
	report.Released = err == nil && len(p.Stages) == len(DiskStages())
	return report, err
}

// begin finds the target's mount before anything is changed.
func begin(ctx context.Context, t Target) (*Release, error) {
	fail := func(err error) (*Release, error) { return nil, &StageError{"finding the target", err} }
	root, err := mounts.At(t.Mountpoint)
	if err != nil {
		return fail(err)
	}
	list, err := mounts.OwnMounts()
	if err != nil {
		return fail(err)
	}
	r := &Release{Target: t, Root: root}
	if r.Tree, err = mounts.LeafFirst(list, root.ID); err != nil {
		return fail(err)
	}
	if err := r.matchDevices(); err != nil {
		return fail(err)
	}
	return r, r.describe(ctx)
}

// matchDevices makes sure that every file system of the tree that is stored on a
// device has that device in the target: what is not there could not be proved.
func (r *Release) matchDevices() error {
	for _, m := range r.filesystems() {
		number, err := holders.BlockNumber(m)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(r.Target.Devices, func(d Device) bool { return d.number() == *number })
		if at < 0 {
			return fmt.Errorf("the %s on %s is on device %s, which is not among those of the target", m.FSType, m.Point, number)
		}
		if d := r.Target.Devices[at]; d.FSType != m.FSType {
			return fmt.Errorf("%s is mounted as %s, but %s is said to be %s", m.Point, m.FSType, d.Path, d.FSType)
		}
	}
	return nil
}

// describe works out what refers to the target.
func (r *Release) describe(ctx context.Context) error {
	r.held = holders.MountTarget(r.Tree...)
	for _, d := range r.Target.Devices {
		r.held.Blocks = append(r.held.Blocks, d.number())
	}
	for _, m := range r.filesystems() {
		if err := r.held.AddStatDevice(m.Point); err != nil {
			return &StageError{"finding the target", err}
		}
	}
	if err := errors.Join(r.lookElsewhere(ctx), r.watchAsync()); err != nil {
		return &StageError{"finding the target", err}
	}
	return nil
}

func runStage(ctx context.Context, s Stage, r *Release) (StageResult, error) {
	result := StageResult{Name: s.Name, Status: OK, Start: time.Now()}
	err := ctx.Err()
	if err == nil {
		result.Evidence, err = s.Run(ctx, r)
	}
	result.Seconds = time.Since(result.Start).Seconds()
	if result.Evidence != nil {
		result.Summary = result.Evidence.Line()
	}
	if n, ok := result.Evidence.(noter); ok && n.IsNote() {
		result.Status = Note
	}
	if err != nil {
		err = named(s.Name, err)
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
