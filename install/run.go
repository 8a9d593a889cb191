package install

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"installer/finalize"
	"installer/install/journal"
	"installer/install/target"
)

// EventKind is the kind of an Event.
type EventKind string

// The kinds of Event, with the fields that each fills beside Time and Kind.
const (
	EventStep     EventKind = "step"     // a step begins: Step, Title, Index, Count
	EventProgress EventKind = "progress" // bytes of the step so far: Step, Done, Total
	EventDone     EventKind = "done"     // a step ended well: Step, Title, Seconds, Message
	EventNote     EventKind = "note"     // something worth knowing: Step, Message
	EventStage    EventKind = "stage"    // a stage of the finalize pipeline ended: Step, Stage
	EventFailed   EventKind = "failed"   // a step failed: Step, Title, Seconds, Message
	EventUndo     EventKind = "undo"     // something was given back after a failure: Message
)

// Event is one thing that happened during an installation. With --progress=json each is printed as
// one JSON object on a line.
type Event struct {
	Time    time.Time             `json:"time"`
	Kind    EventKind             `json:"event"`
	Step    string                `json:"step,omitempty"`
	Title   string                `json:"title,omitempty"`
	Index   int                   `json:"index,omitempty"` // of the step, from 1
	Count   int                   `json:"count,omitempty"` // of all steps
	Done    int64                 `json:"done,omitempty"`  // bytes
	Total   int64                 `json:"total,omitempty"` // bytes
	Seconds float64               `json:"seconds,omitempty"`
	Message string                `json:"message,omitempty"`
	Stage   *finalize.StageResult `json:"stage,omitempty"`
}

// Observer receives each Event, from several goroutines, one call at a time.
type Observer func(Event)

// run is an installation under way: its acquired resources, and its report.
type run struct {
	journal journal.Journal
	ledger  *finalize.Ledger
	report  *Report
	where   func() string // names the devices that are written to

	mu       sync.Mutex // orders events, which come from several goroutines
	observer Observer
	step     target.Step
}

func newRun(o Options, path string, observe Observer) *run {
	return &run{ledger: finalize.NewLedger(), observer: observe, report: &Report{
		Version: ReportVersion,
		Source:  SourceReport{Reference: o.Source.String()},
		Disk:    DiskReport{Path: path, Bootloader: o.Bootloader},
	}}
}

// perform does the steps in order. When one fails, all that was acquired is given back, newest
// first.
func (r *run) perform(ctx context.Context, steps []target.Step) error {
	r.report.Started = time.Now()
	var err error
	for i, s := range steps {
		if ctx.Err() != nil {
			err = interrupted(ctx)
			break
		}
		r.step = s
		r.emit(Event{Kind: EventStep, Title: s.Title, Index: i + 1, Count: len(steps)})
		if err = r.performOne(ctx, s); err != nil {
			break
		}
	}
	if err != nil {
		r.undo()
	}
	r.report.finish(err)
	return err
}

func (r *run) performOne(ctx context.Context, s target.Step) error {
	result := StepResult{Name: s.Name, Title: s.Title, Started: time.Now()}
	message, err := s.Do(ctx)
	if err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = interrupted(ctx)
	}
	err = nameDevice(err, r.where())
	result.Seconds = time.Since(result.Started).Seconds()
	result.Message = message
	event := Event{Kind: EventDone, Title: s.Title, Seconds: result.Seconds, Message: message}
	if err != nil {
		result.Error = err.Error()
		event.Kind, event.Message = EventFailed, err.Error()
	}
	r.report.Steps = append(r.report.Steps, result)
	r.emit(event)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Title, err)
	}
	return nil
}

// rehearse performs the steps of a dry run, and gives back their resources.
func (r *run) rehearse(ctx context.Context, steps []target.Step) error {
	if err := r.perform(ctx, steps); err != nil {
		return err
	}
	err := r.journal.Unwind(func(string, error) {})
	r.report.finish(err)
	if err == nil {
		r.report.Outcome = Planned
	}
	return err
}

// interrupted is the error of a run that a signal stopped.
func interrupted(ctx context.Context) error {
	return fmt.Errorf("interrupted: %w", context.Cause(ctx))
}

// undo gives back all that the run acquired. Processes need no undo: whoever starts a helper waits
// for its end, and the helper ends with everything that it started.
func (r *run) undo() {
	// Each failure is reported as it happens; the run's own error stays the one that counts.
	_ = r.journal.Unwind(func(what string, err error) {
		message := what
		if err != nil {
			message = fmt.Sprintf("%s: failed: %v", what, err)
			r.report.UndoErrors = append(r.report.UndoErrors, message)
		}
		r.emit(Event{Kind: EventUndo, Message: message})
	})
}

// emit passes an event to the observer, one at a time.
func (r *run) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now()
	if e.Step == "" {
		e.Step = r.step.Name
	}
	r.observer(e)
}

// Progress implements journal.Log.
func (r *run) Progress(done, total int64) {
	r.emit(Event{Kind: EventProgress, Done: done, Total: total})
}

// Note implements journal.Log.
func (r *run) Note(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.report.Notes = append(r.report.Notes, message)
	r.mu.Unlock()
	r.emit(Event{Kind: EventNote, Message: message})
}
