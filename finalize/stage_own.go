package finalize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"installer/finalize/holders"
)

// Dropped is the evidence of drop-handles.
type Dropped struct {
	Closed []string `json:"closed"`
	Open   []Entry  `json:"open,omitempty"`
	// Search is made when something is left open, to show it as the kernel does.
	Search *holders.Report `json:"search,omitempty"`
}

// Line implements Evidence.
func (d Dropped) Line() string {
	if len(d.Open) > 0 {
		return fmt.Sprintf("closed %d handles, %d are still open", len(d.Closed), len(d.Open))
	}
	if len(d.Closed) == 0 {
		return "nothing was open"
	}
	return fmt.Sprintf("closed %s; nothing is open", strings.Join(d.Closed, ", "))
}

// dropHandles closes every handle, also after one that fails, and then asks the
// ledger.
func dropHandles(ctx context.Context, r *Release) (Evidence, error) {
	var evidence Dropped
	var failures []error
	for _, h := range r.Target.Handles {
		if err := h.Close(); err != nil {
			failures = append(failures, fmt.Errorf("closing %s: %w", h.Name, err))
		}
		evidence.Closed = append(evidence.Closed, h.Name)
	}
	if r.Target.Ledger != nil {
		evidence.Open = r.Target.Ledger.Open()
	}
	if len(evidence.Open) > 0 {
		return explainOpen(ctx, r, evidence, failures)
	}
	return evidence, errors.Join(failures...)
}

func explainOpen(ctx context.Context, r *Release, evidence Dropped, failures []error) (Evidence, error) {
	held := &HeldError{Handles: evidence.Open,
		Why: "this program did not give back what it opened; nothing was unmounted. This is a defect of the program, please report it"}
	search, err := holders.ScanSelf(ctx, r.held)
	if err != nil {
		failures = append(failures, err)
	} else {
		evidence.Search, held.Holders = &search, search.Holders
	}
	held.Err = errors.Join(failures...)
	return evidence, held
}

// Search is the evidence of a stage that looked for holders.
type Search struct {
	holders.Report
	Grace *Grace `json:"grace,omitempty"` // when it was waited for the kernel
}

// Line implements Evidence.
func (s Search) Line() string {
	certain := len(s.Certain())
	line := fmt.Sprintf("%d holders in %d processes and %d mount namespaces", certain, s.Processes, s.Namespaces)
	if suspects := len(s.Holders) - certain; suspects > 0 {
		line += fmt.Sprintf("; %d suspects", suspects)
	}
	if s.Grace != nil {
		line += fmt.Sprintf("; waited %.2f s for the kernel to let go (%s)", s.Grace.Seconds, strings.Join(s.Grace.Why, ", "))
	}
	if len(s.Unreadable) > 0 {
		line += "; could not look at: " + strings.Join(s.Unreadable, "; ")
	}
	return line
}

// IsNote says that the search could not see everything, or what some things are
// of: the proof of the release is then the super block's alone.
func (s Search) IsNote() bool { return s.Verdict == holders.Unknown || s.Grace != nil }

// proveSelfFree looks at this process and what it started.
func proveSelfFree(ctx context.Context, r *Release) (Evidence, error) {
	report, err := holders.ScanSelf(ctx, r.held)
	if err != nil {
		return nil, err
	}
	if len(report.Holders) > 0 {
		return Search{Report: report}, &HeldError{Holders: report.Holders, Why: "by this program itself or by what it started"}
	}
	if len(report.Unreadable) > 0 {
		return Search{Report: report}, fmt.Errorf("cannot tell whether this program itself holds the target: %s",
			strings.Join(report.Unreadable, "; "))
	}
	return Search{Report: report}, nil
}

// proveNoHolders looks at every process and namespace.
func proveNoHolders(ctx context.Context, r *Release) (Evidence, error) {
	if err := r.watchAsync(); err != nil {
		return nil, err
	}
	report, err := holders.Scan(ctx, r.held)
	if err != nil {
		return nil, err
	}
	if len(report.Certain()) > 0 { // a mere suspect does not stop the release: the super block decides
		return Search{Report: report}, &HeldError{Holders: report.Holders, Why: "nothing was unmounted"}
	}
	grace, err := r.grace(ctx, report.UnownedSockets)
	return Search{Report: report, Grace: grace}, err
}
