package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"installer/finalize/holders"
)

// watchEvent is a line of holders --watch --json.
type watchEvent struct {
	Time   time.Time       `json:"time"`
	Event  string          `json:"event"`            // holds, gone, or the verdict where there is no holder
	Holder *holders.Holder `json:"holder,omitempty"` // that holds or is gone
}

// watchKey is a holder without its evidence, which may change.
type watchKey struct {
	class           holders.Class
	pid, host, tid  int
	path, namespace string
}

// watcher prints the holders of a target as they come and go.
type watcher struct {
	path   string
	flags  holdersFlags
	out    io.Writer
	screen bool // a terminal, which is drawn anew
	known  map[watchKey]holders.Holder
	last   holders.Report
	held   bool // it has been
}

// watchInterval is the time between two searches.
const watchInterval = 200 * time.Millisecond

func watchHolders(ctx context.Context, path string, flags holdersFlags, stdout io.Writer) error {
	_, screen := terminal(stdout)
	w := &watcher{path: path, flags: flags, out: stdout, screen: screen && !flags.json}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	if err := holders.Watch(ctx, path, ticker.C, w.visit); err != nil {
		return err
	}
	return verdictError(path, w.last)
}

// visit takes a report, and reports whether to go on: until the target is free that was not.
func (w *watcher) visit(r holders.Report) (more bool, err error) {
	now := map[watchKey]holders.Holder{}
	var events []watchEvent
	for _, h := range r.Holders {
		key := watchKey{h.Class, h.PID, h.HostPID, h.TID, h.Path, h.Namespace}
		if _, ok := w.known[key]; !ok {
			events = append(events, watchEvent{time.Now(), "holds", &h})
		}
		now[key] = h
	}
	for key, h := range w.known {
		if _, ok := now[key]; !ok {
			events = append(events, watchEvent{time.Now(), "gone", &h})
		}
	}
	first := w.known == nil
	if len(now) == 0 && (first || len(events) > 0 || r.Verdict != w.last.Verdict) {
		events = append(events, watchEvent{time.Now(), string(r.Verdict), nil})
	}
	w.known, w.last = now, r
	w.held = w.held || r.Verdict != holders.Free
	if err := w.show(events); err != nil {
		return false, fmt.Errorf("printing the holders: %w", err)
	}
	return !w.held || r.Verdict != holders.Free, nil
}

func (w *watcher) show(events []watchEvent) error {
	if w.screen {
		if len(events) == 0 {
			return nil
		}
		const clear = "\x1b[H\x1b[2J"
		if _, err := io.WriteString(w.out, clear); err != nil {
			return err
		}
		return writeHolders(w.out, w.path, w.last, w.flags.verbose)
	}
	for _, e := range events {
		if err := w.print(e); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) print(e watchEvent) error {
	if w.flags.json {
		return json.NewEncoder(w.out).Encode(e)
	}
	line := e.Time.Format("15:04:05.000") + " " + e.Event
	if e.Holder != nil {
		line += fmt.Sprintf(" %s: %s", e.Holder.Class, holderRow(*e.Holder))
	}
	_, err := io.WriteString(w.out, line+"\n")
	return err
}
