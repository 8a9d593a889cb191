package finalize

import (
	"context"
	"errors"
	"fmt"
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
	Target Target
	Root   mounts.Mount   // the target's mount
	Tree   []mounts.Mount // it and all that stands on it, leaf first
	held   holders.Target
}

// Run releases the target. After a stage that fails none is run, and the report
// lists the rest as not run. The report is never nil. observer, which may be nil,
// is told of each stage as it ends.
//
// A target that something holds gives a *HeldError, anything else that went
// wrong a *StageError.
func (p *Pipeline) Run(ctx context.Context, t Target, observer func(StageResult)) (*Report, error) {
	report := &Report{Version: reportVersion, Mountpoint: t.Mountpoint, Device: t.Device.Path}
	release, err := begin(t)
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
	report.Released = err == nil && len(p.Stages) == len(DiskStages())
	return report, err
}

// begin finds the target's mount before anything is changed.
func begin(t Target) (*Release, error) {
	fail := func(err error) (*Release, error) { return nil, &StageError{"finding the target", err} }
	root, err := mounts.At(t.Mountpoint)
	if err != nil {
		return fail(err)
	}
	if root.FSType != t.Device.FSType {
		return fail(fmt.Errorf("%s is mounted as %s, but said to be %s", t.Mountpoint, root.FSType, t.Device.FSType))
	}
	list, err := mounts.OwnMounts()
	if err != nil {
		return fail(err)
	}
	r := &Release{Target: t, Root: root}
	if r.Tree, err = mounts.LeafFirst(list, root.ID); err != nil {
		return fail(err)
	}
	return r, r.describe()
}

// describe works out what refers to the target.
func (r *Release) describe() error {
	r.held = holders.MountTarget(r.Tree...)
	r.held.Blocks = append(r.held.Blocks, r.Target.Device.number())
	for _, m := range r.filesystems() {
		if err := r.held.AddStatDevice(m.Point); err != nil {
			return &StageError{"finding the target", err}
		}
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
