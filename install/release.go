package install

import (
	"context"

	"installer/finalize"
	"installer/finalize/mounts"
)

// finalize hands every handle on the target to the pipeline that gives the
// target back. From here on nothing is undone by force: where the pipeline
// stops, the mount stays as it was, and ends with this process's namespace.
func (r *run) finalize(ctx context.Context) error {
	if err := r.closeSource(); err != nil {
		return err
	}
	if err := injectFault(r); err != nil {
		return err
	}
	dev := r.disk.device
	major, minor := dev.Number()
	pipeline := finalize.Pipeline{Stages: finalize.DiskStages()}
	target := finalize.Target{
		Mountpoint: r.target.root,
		Handles:    r.releaseOrder(),
		Ledger:     r.ledger,
		Devices: []finalize.Device{{
			Path: dev.Path(), Major: major, Minor: minor,
			FSType: string(r.opts.Filesystem), File: dev.File(),
		}},
		Detach: []finalize.Detacher{dev},
	}
	r.passOn()
	report, err := pipeline.Run(ctx, target, func(s finalize.StageResult) {
		r.emit(Event{Kind: EventStage, Stage: &s})
	})
	r.report.Finalize = report
	if err != nil {
		r.leaveMounted()
	}
	return err
}

// leaveMounted keeps the undo from a target that the pipeline left mounted: what
// is held cannot be unmounted, and what carries it neither. It all lies in the
// private mount namespace and goes with the process.
func (r *run) leaveMounted() {
	if _, err := mounts.At(r.target.root); err != nil {
		return // it is unmounted: the rest can be given back
	}
	r.journal.drop(r.disk.claim)
	r.journal.drop(r.disk.workspace)
	r.note("left mounted in this process's own namespace: the mount and the loop device go when the process ends and nobody holds them")
}

// releaseOrder lists the handles for the pipeline, the last opened first: the
// repository comes before the directory that it was opened through.
func (r *run) releaseOrder() []finalize.Handle {
	var handles []finalize.Handle
	for i := len(r.system.handles) - 1; i >= 0; i-- {
		handles = append(handles, r.system.handles[i].Handle)
	}
	return handles
}

// passOn takes out of the journal what is the pipeline's to give back.
func (r *run) passOn() {
	for _, h := range r.system.handles {
		r.journal.drop(h.entry)
	}
	r.journal.drop(r.system.mount)
	r.journal.drop(r.system.device)
}
