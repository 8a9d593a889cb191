package finalize

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"installer/finalize/holders"
)

// Status is the outcome of a stage.
type Status string

// The outcomes. A note is a success with a remark, such as "the device does not support this".
const (
	OK        Status = "ok"
	Note      Status = "note"
	NotProven Status = "not-proven" // nothing failed, and the stage's statement is not proven
	Failed    Status = "failed"
	NotRun    Status = "not-run"
)

// Evidence is the observation of a stage. It is written to the report as JSON.
type Evidence interface {
	// Line returns the evidence as one line for people.
	Line() string
}

// noter is evidence that makes the stage's status a note.
type noter interface{ IsNote() bool }

// unprover is evidence that may fall short of a proof, with a sentence for each statement that is
// not proven.
type unprover interface{ NotProven() []string }

// StageResult is one stage of the report.
type StageResult struct {
	Name     string    `json:"name"`
	Status   Status    `json:"status"`
	Start    time.Time `json:"start,omitzero"`
	Seconds  float64   `json:"seconds"`
	Summary  string    `json:"summary,omitempty"`
	Evidence Evidence  `json:"evidence,omitempty"`
	Error    string    `json:"error,omitempty"`
	// Holders are the holders that stopped the stage.
	Holders []holders.Holder `json:"holders,omitempty"`
}

// Report is the evidence of a whole release. Version is the version of its form: fields may be added
// within a version, none is renamed or removed.
type Report struct {
	Version    int      `json:"version"`
	Mountpoint string   `json:"mount_point"`
	Devices    []string `json:"devices,omitempty"`
	Released   bool     `json:"released"` // all proofs were made, and hold
	// Proven are the statements that were proven, in their order.
	Proven []Proof `json:"proven,omitempty"`
	// Unproven says of each statement that could not be proven why.
	Unproven []string      `json:"unproven,omitempty"`
	Binds    []Bind        `json:"binds,omitempty"` // mounts of the tree whose file systems are not the target's
	Stages   []StageResult `json:"stages"`
}

const reportVersion = 1

// Succeeded reports whether a stage was run, with no remark.
func (r *Report) Succeeded(s Stage) bool {
	return slices.ContainsFunc(r.Stages, func(result StageResult) bool { return result.Name == s.name && result.Status == OK })
}

// HeldError is the refusal of a target that is held. The mount is as it was, unless the stage is one
// after the unmount.
type HeldError struct {
	Stage   string
	Holders []holders.Holder
	Handles []Entry // of this process, from the ledger
	Why     string  // the failure, or the answer of the kernel
	Err     error   // the system call's error, when one led here
}

// Error names every holder, a line for each, and how to make it let go.
func (e *HeldError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns an error for each line of the message. The first one wraps the system call's.
func (e *HeldError) Unwrap() []error {
	head := fmt.Sprintf("the target is held (%s)", e.Stage)
	if e.Why != "" {
		head += ": " + e.Why
	}
	list := []error{errors.New(head)}
	if e.Err != nil {
		list[0] = fmt.Errorf("%s: %w", head, e.Err)
	}
	for _, entry := range e.Handles {
		list = append(list, fmt.Errorf("  this process: %s", entry))
	}
	for _, h := range e.Holders {
		list = append(list, fmt.Errorf("  %s", h))
	}
	return list
}

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

// UnprovenError says that nothing failed, and that the target's release is not proven.
type UnprovenError struct {
	Unmounted bool
	Why       []string
}

// Error names every statement that is not proven.
func (e *UnprovenError) Error() string {
	outcome := "not proven"
	if e.Unmounted {
		outcome = "unmounted, not proven released"
	}
	return outcome + ": " + strings.Join(e.Why, "; ")
}
