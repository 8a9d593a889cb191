package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"installer/finalize"
	"installer/install"
	"installer/install/printable"
	"installer/install/verify"
	"installer/install/vm/internal/wire"
)

// Bounds of a guest's statements. An installation makes a few thousand, of less than a kilobyte
// each.
const (
	maxMessages = 1 << 20
	maxLine     = 4 << 20 // bytes of one message; the report is the longest
	maxEvent    = 64 << 10
	maxSteps    = 100
)

// deviceNames are the names that a person has for the guest's devices.
type deviceNames struct{ target, source string }

// inText replaces the guest's names of its devices, and escapes every character that a terminal
// does not just show.
func (d deviceNames) inText(text string) string {
	return printable.Line(strings.NewReplacer(
		wire.SourceRef, d.source, wire.SourceTreeRef, d.source, wire.SourceNode, d.source, wire.TargetNode, d.target,
	).Replace(text))
}

// inJSON applies inText to every text of a JSON value.
func (d deviceNames) inJSON(line []byte) ([]byte, error) {
	in := json.NewDecoder(bytes.NewReader(line))
	in.UseNumber()
	var value any
	if err := in.Decode(&value); err != nil {
		return nil, fmt.Errorf("the guest sent no JSON: %w", err)
	}
	clean, err := json.Marshal(d.inValue(value))
	if err != nil {
		return nil, fmt.Errorf("cleaning a message of the guest: %w", err)
	}
	return clean, nil
}

func (d deviceNames) inValue(value any) any {
	switch x := value.(type) {
	case string:
		return d.inText(x)
	case []any:
		for n := range x {
			x[n] = d.inValue(x[n])
		}
	case map[string]any:
		clean := make(map[string]any, len(x))
		for name, member := range x {
			clean[printable.Line(name)] = d.inValue(member)
		}
		return clean
	}
	return value
}

// parseEvent reads an event of the installer in the guest. Numbers that only a display uses are
// made to fit.
func parseEvent(line []byte) (e install.Event, err error) {
	if len(line) > maxEvent {
		return e, fmt.Errorf("the guest sent an event of %d bytes", len(line))
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("the guest sent something that is no event: %w", err)
	}
	switch e.Kind {
	case install.EventStep, install.EventProgress, install.EventDone, install.EventNote, install.EventFailed, install.EventUndo:
		e.Stage = nil
	case install.EventStage:
		if e.Stage == nil || !knownStatus(e.Stage.Status) {
			return e, errors.New("the guest sent the end of a stage without its status")
		}
		e.Stage.Seconds = max(e.Stage.Seconds, 0)
	default:
		return e, fmt.Errorf("the guest sent an event of the unknown kind %q", e.Kind)
	}
	e.Count = min(max(e.Count, 0), maxSteps)
	e.Index = min(max(e.Index, 0), e.Count)
	e.Total = max(e.Total, 0)
	e.Done = max(e.Done, 0)
	if e.Total > 0 {
		e.Done = min(e.Done, e.Total)
	}
	e.Seconds = max(e.Seconds, 0)
	return e, nil
}

func knownStatus(s finalize.Status) bool {
	return s == finalize.OK || s == finalize.Note || s == finalize.Failed || s == finalize.NotRun
}

// checkSuccess returns the reason why the report of an installer that ended with exit status 0 is
// not that of a success. digest is that of the image's manifest, and stateroot the name, as the
// host knows them.
func checkSuccess(r *install.Report, digest, stateroot string) error {
	switch {
	case r == nil || r.Outcome != install.Complete:
		return errors.New("the installer in the guest ended without a report of success")
	case r.Source.Digest != digest:
		return fmt.Errorf("the guest reports that it installed an image with the digest %q, and the image has %q", r.Source.Digest, digest)
	case r.Finalize == nil || !r.Finalize.Released || len(r.Finalize.Stages) == 0:
		return errors.New("the guest reports success without the proofs of the release")
	}
	for _, s := range r.Finalize.Stages {
		if s.Status != finalize.OK && s.Status != finalize.Note {
			return fmt.Errorf("the guest reports success with the stage %s %q", s.Name, s.Status)
		}
	}
	d := r.Deployment
	if !isChecksum(d.Commit) || !isChecksum(d.BootChecksum) || d.Path != "ostree/deploy/"+stateroot+"/deploy/"+d.Commit+".0" {
		return fmt.Errorf("the guest reports a deployment that cannot be: %q with the commit %q and the boot checksum %q", d.Path, d.Commit, d.BootChecksum)
	}
	if d.Composefs != "" && !isChecksum(d.Composefs) {
		return fmt.Errorf("the guest reports a composefs image with the digest %q", d.Composefs)
	}
	return nil
}

// isChecksum reports whether s is a SHA-256 in lower-case hexadecimal.
func isChecksum(s string) bool {
	const length = 64
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}

// parseCheck reads a statement of the verifier in the guest. A check must have a known status, and
// a fault if it failed.
func parseCheck(line []byte) (e verify.Event, err error) {
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("the guest sent something that is no check: %w", err)
	}
	if e.Check == nil {
		return e, nil
	}
	faults := 0
	for _, f := range e.Findings {
		switch f.Severity {
		case verify.Error:
			faults++
		case verify.Note:
		default:
			return e, fmt.Errorf("the guest sent a finding of the unknown severity %q", f.Severity)
		}
	}
	switch s := e.Check.Status; {
	case s == verify.Failed && faults > 0, s != verify.Failed && faults == 0 && (s == verify.Passed || s == verify.NotChecked || s == verify.NotApplicable):
		e.Check.Seconds = max(e.Check.Seconds, 0)
		return e, nil
	}
	return e, fmt.Errorf("the guest sent the check %q as %q with %d faults", e.Check.Name, e.Check.Status, faults)
}
