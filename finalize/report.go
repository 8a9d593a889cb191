package finalize

import (
	"fmt"
	"strings"
	"time"

	"installer/finalize/holders"
)

// Status is the outcome of a stage.
type Status string

// The outcomes. A note is a success with something to say, such as "the device
// does not support this".
const (
	OK     Status = "ok"
	Note   Status = "note"
	Failed Status = "failed"
	NotRun Status = "not-run"
)

// Evidence is what a stage saw. It is written to the report as JSON.
type Evidence interface {
	// Line tells a person, in one line.
	Line() string
}

// noter is evidence that makes the stage's status a note.
type noter interface{ IsNote() bool }

// StageResult is one stage of the report.
type StageResult struct {
	Name     string    `json:"name"`
	Status   Status    `json:"status"`
	Start    time.Time `json:"start,omitzero"`
	Seconds  float64   `json:"seconds"`
	Summary  string    `json:"summary,omitempty"`
	Evidence Evidence  `json:"evidence,omitempty"`
	Error    string    `json:"error,omitempty"`
	// Holders are those that stopped the stage.
	Holders []holders.Holder `json:"holders,omitempty"`
}

// Report is the evidence of a whole release. Version is the version of its form:
// fields may be added within a version, none is renamed or removed.
type Report struct {
	Version    int           `json:"version"`
	Mountpoint string        `json:"mount_point"`
	Devices    []string      `json:"devices,omitempty"`
	Released   bool          `json:"released"` // every stage was run, and every proof holds
	Stages     []StageResult `json:"stages"`
}

const reportVersion = 1

// HeldError says that the target is held, and by whom. The mount is as it was,
// unless the stage is one after the unmount.
type HeldError struct {
	Stage   string
	Holders []holders.Holder
	Handles []Entry // of this process, from the ledger
	Why     string  // what failed, or what the kernel showed
	Err     error   // the system call's error, when one led here
}

// Error names every holder, and what to do about it.
func (e *HeldError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the target is held (%s)", e.Stage)
	if e.Why != "" {
		fmt.Fprintf(&b, ": %s", e.Why)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	for _, entry := range e.Handles {
		fmt.Fprintf(&b, "\n  this process: %s", entry)
	}
	for _, h := range e.Holders {
		fmt.Fprintf(&b, "\n  %s", h)
	}
	return b.String()
}

// Unwrap returns the system call's error.
func (e *HeldError) Unwrap() error { return e.Err }

// StageError is any other failure of a stage.
type StageError struct {
	Stage string
	Err   error
}

// Error names the stage.
func (e *StageError) Error() string {
	return fmt.Sprintf("releasing the target: %s: %v", e.Stage, e.Err)
}

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Err }
