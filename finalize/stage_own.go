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
	// Search shows the same in the kernel's tables, when a handle is left open.
	Search *holders.Report `json:"search,omitempty"`
}

// Line implements Evidence.
func (d Dropped) Line() string {
	if len(d.Open) > 0 {
		return fmt.Sprintf("closed %s; still open: %d", count(len(d.Closed), "handle"), len(d.Open))
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
		Why: "this program did not close its own handles; nothing was unmounted. This is a defect of the program, please report it"}
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
}

// Line implements Evidence.
func (s Search) Line() string {
	certain := len(s.Certain())
	line := fmt.Sprintf("%s in %s and %s", count(certain, "holder"), countProcesses(s.Processes), count(s.Namespaces, "mount namespace"))
	if suspects := len(s.Holders) - certain; suspects > 0 {
		line += "; " + count(suspects, "suspect")
	}
	if len(s.Unreadable) > 0 {
		line += "; could not look at: " + strings.Join(s.Unreadable, "; ")
	}
	return line
}

// IsNote reports whether the search could not see everything, or found suspects: the proof of the
// release is then the superblock's alone.
func (s Search) IsNote() bool { return s.Verdict == holders.Unknown }

// proveSelfFree looks at this process and its children.
func proveSelfFree(ctx context.Context, r *Release) (Evidence, error) {
	report, err := holders.ScanSelf(ctx, r.held)
	if err != nil {
		return nil, err
	}
	if len(report.Holders) > 0 {
		return Search{Report: report}, &HeldError{Holders: report.Holders, Why: "by this program itself or by its children"}
	}
	if len(report.Unreadable) > 0 {
		return Search{Report: report}, fmt.Errorf("whether this program itself holds the target is not known: %s",
			strings.Join(report.Unreadable, "; "))
	}
	return Search{Report: report}, nil
}

// proveNoHolders looks at every process and namespace. A mere suspect does not stop the release: the
// superblock decides.
func proveNoHolders(ctx context.Context, r *Release) (Evidence, error) {
	report, err := holders.Scan(ctx, r.held)
	if err != nil {
		return nil, err
	}
	if len(report.Certain()) > 0 {
		return Search{Report: report}, &HeldError{Holders: report.Holders, Why: "nothing was unmounted"}
	}
	return Search{Report: report}, nil
}

func countProcesses(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// proveUnshared is proveNoHolders before anything is changed. From a PID namespace of its own the
// process sees neither the processes nor the mounts outside of it, where a file system may be in
// use: then nothing is done to a superblock, and the unmount alone shows whether somebody else has
// it.
func proveUnshared(ctx context.Context, r *Release) (Evidence, error) {
	evidence, err := proveNoHolders(ctx, r)
	if search, ok := evidence.(Search); ok && search.Blind(holders.OtherPIDNamespaces) {
		r.blind = true
		return evidence, errors.Join(err, r.leaveSubdirectories())
	}
	if err != nil {
		return evidence, err
	}
	for _, f := range r.systems {
		if frozen, err := frozenNow(f.Mount); err == nil && frozen {
			return evidence, &HeldError{Holders: []holders.Holder{frozenHolder(f.Mount)}, Why: "someone froze it and has not thawed it"}
		}
	}
	return evidence, nil
}
