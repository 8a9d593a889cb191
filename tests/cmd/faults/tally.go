package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// tally counts by kind.
type tally struct {
	kinds      []kind
	rows       map[string]*row
	violations int
}

type row struct{ runs, injected, kept int }

func newTally(kinds []kind) *tally {
	t := &tally{kinds: kinds, rows: map[string]*row{}}
	for _, k := range kinds {
		t.rows[k.name] = &row{}
	}
	return t
}

// add counts a run, and prints one that broke a promise at once.
func (a *tally) add(t *trial, o options) {
	r := a.rows[t.kind.name]
	r.runs++
	if t.injected {
		r.injected++
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "%s %d on %s: %s (%.1f s)\n", t.kind.name, t.number, t.fs, t.story, t.took.Seconds())
	}
	if len(t.broken) == 0 {
		r.kept++
		return
	}
	a.violations++
	fmt.Printf("VIOLATION %s run %d (%s): %s\n", t.kind.name, t.number, t.describe(), t.story)
	for _, b := range t.broken {
		fmt.Printf("  %s\n", b)
	}
	fmt.Printf("  again: tests/faults -seed %d -kind %s -run %d -v\n", o.seed, t.kind.name, t.number)
}

// print writes the table. The last line is for scripts.
func (a *tally) print(w io.Writer, o options, took time.Duration) {
	fmt.Fprintf(w, "%-18s %6s %9s %19s\n", "fault", "runs", "injected", "kept every promise")
	var all row
	for _, k := range a.kinds {
		r := a.rows[k.name]
		fmt.Fprintf(w, "%-18s %6d %9d %19d\n", k.name, r.runs, r.injected, r.kept)
		all.runs, all.injected, all.kept = all.runs+r.runs, all.injected+r.injected, all.kept+r.kept
	}
	fmt.Fprintf(w, "seed %d: %d runs, %d faults injected, %d kept every promise, %d did not (%s)\n",
		o.seed, all.runs, all.injected, all.kept, a.violations, took.Round(time.Second))
}
