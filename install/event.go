package install

import (
	"time"

	"installer/finalize"
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
