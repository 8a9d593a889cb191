// Package journal lists the resources that an installation has acquired, and how each is given
// back: by the release at the end, or by an undo after a failure. The meaning of a resource, and
// the decision to give up, belong to the callers.
package journal

import (
	"errors"
	"fmt"

	"installer/finalize"
)

// Log takes notes and progress of an installation that is under way.
type Log interface {
	// Note reports a fact that the user should know and that is no failure.
	Note(format string, args ...any)
	// Progress reports the bytes that the step under way has done, of total; 0 is unknown.
	Progress(done, total int64)
}

// Journal lists acquired resources in the order of acquiring. A step adds its undo at once, before
// anything else can fail. The zero value is empty.
type Journal struct {
	entries []*Undo
	handles []handle
}

// Undo is an entry of a Journal.
type Undo struct {
	what string
	do   func() error
}

// handle is something open on the target.
type handle struct {
	finalize.Handle
	entry *Undo
}

// Add appends an entry and returns it, for Drop. what describes the undo in the past tense, such as
// "closed the image".
func (j *Journal) Add(what string, do func() error) *Undo {
	u := &Undo{what: what, do: do}
	j.entries = append(j.entries, u)
	return u
}

// Drop takes out an entry that was given back, or passed on to someone who will.
func (j *Journal) Drop(u *Undo) {
	for i, entry := range j.entries {
		if entry == u {
			j.entries = append(j.entries[:i], j.entries[i+1:]...)
			return
		}
	}
}

// Unwind gives everything back, newest first, and calls undone for each. One that fails does not
// stop the others.
func (j *Journal) Unwind(undone func(what string, err error)) error {
	var errs []error
	for len(j.entries) > 0 {
		last := j.entries[len(j.entries)-1]
		j.entries = j.entries[:len(j.entries)-1]
		err := last.do()
		undone(last.what, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", last.what, err))
		}
	}
	return errors.Join(errs...)
}

// Hold registers a handle on the target. The release closes it, or an undo.
func (j *Journal) Hold(name string, closeIt func() error) { j.HoldDraft(name, closeIt, closeIt) }

// HoldDraft registers a handle that the release completes and an undo discards.
func (j *Journal) HoldDraft(name string, complete, discard func() error) {
	entry := j.Add("closed the "+name, discard)
	j.handles = append(j.handles, handle{finalize.Handle{Name: name, Closer: closerFunc(complete)}, entry})
}

// Handles passes the handles on to a release, the last opened first: the repository comes before
// the directory that it was opened through.
func (j *Journal) Handles() []finalize.Handle {
	handles := []finalize.Handle{}
	for i := len(j.handles) - 1; i >= 0; i-- {
		handles = append(handles, j.handles[i].Handle)
		j.Drop(j.handles[i].entry)
	}
	j.handles = nil
	return handles
}

// closerFunc makes an io.Closer of a function.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }
