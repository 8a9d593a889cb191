package install

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"installer/finalize"
	"installer/install/confine"
)

// step is one thing an installation does, named as users and scripts see it.
type step struct {
	name  string
	title string
	do    func(*run, context.Context) error
}

// run is an installation under way: what its steps hand on to each other.
type run struct {
	opts    Options
	journal journal
	ledger  *finalize.Ledger
	report  *Report

	mu       sync.Mutex // orders events, which come from several goroutines
	observer Observer
	step     step
	message  string // what the step under way has to say at its end

	source source
	target target
	disk   wholeDisk // of to-disk
	// mounted is what to-filesystem installs to; nil of to-disk.
	mounted *mountedTarget
	system  system
}

// perform does the steps in order. When one fails, all that was acquired is
// given back, newest first.
func (r *run) perform(ctx context.Context, steps []step) error {
	r.report.Started = time.Now()
	err := r.performAll(ctx, steps)
	if err != nil {
		r.undo()
	}
	r.report.finish(err)
	return err
}

func (r *run) performAll(ctx context.Context, steps []step) error {
	for i, s := range steps {
		if err := ctx.Err(); err != nil {
			return interrupted(ctx)
		}
		r.step = s
		r.emit(Event{Kind: EventStep, Title: s.title, Index: i + 1, Count: len(steps)})
		result := StepResult{Name: s.name, Title: s.title, Started: time.Now()}
		err := s.do(r, ctx)
		if err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = interrupted(ctx)
		}
		err = r.nameDevice(err)
		result.Seconds = time.Since(result.Started).Seconds()
		result.Message, r.message = r.message, ""
		event := Event{Kind: EventDone, Title: s.title, Seconds: result.Seconds, Message: result.Message}
		if err != nil {
			result.Error = err.Error()
			event.Kind, event.Message = EventFailed, err.Error()
		}
		r.report.Steps = append(r.report.Steps, result)
		r.emit(event)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

// before are the steps that come before the one of a name.
func before(steps []step, name string) []step {
	for i, s := range steps {
		if s.name == name {
			return steps[:i]
		}
	}
	return steps
}

// rehearse does the steps of a dry run, and gives back what they took.
func (r *run) rehearse(ctx context.Context, steps []step) error {
	if err := r.perform(ctx, steps); err != nil {
		return err
	}
	err := r.journal.unwind(func(string, error) {})
	r.report.finish(err)
	if err == nil {
		r.report.Outcome = Planned
	}
	return err
}

// interrupted is the error of a run that was told to stop.
func interrupted(ctx context.Context) error {
	return fmt.Errorf("interrupted: %w", context.Cause(ctx))
}

// undo gives back all that the run acquired. Its own children are ended first:
// they could hold the rest.
func (r *run) undo() {
	ended, err := confine.EndChildren()
	if err != nil {
		r.emit(Event{Kind: EventUndo, Message: fmt.Sprintf("could not end the processes that this run started: %v", err)})
	}
	for _, pid := range ended {
		r.emit(Event{Kind: EventUndo, Message: fmt.Sprintf("ended process %d, which this run had started", pid)})
	}
	// Each failure is told as it happens; the run's own error stays the one that counts.
	_ = r.journal.unwind(func(what string, err error) {
		message := what
		if err != nil {
			message = fmt.Sprintf("%s: failed: %v", what, err)
			r.report.UndoErrors = append(r.report.UndoErrors, message)
		}
		r.emit(Event{Kind: EventUndo, Message: message})
	})
}

// emit tells the observer, one event at a time.
func (r *run) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now()
	if e.Step == "" {
		e.Step = r.step.name
	}
	r.observer(e)
}

// say sets what the step under way tells at its end.
func (r *run) say(format string, args ...any) { r.message = fmt.Sprintf(format, args...) }

// note tells something worth knowing that is no failure.
func (r *run) note(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.report.Notes = append(r.report.Notes, message)
	r.mu.Unlock()
	r.emit(Event{Kind: EventNote, Message: message})
}
