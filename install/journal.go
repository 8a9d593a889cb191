package install

import (
	"errors"
	"fmt"
)

// journal lists what has been acquired and how to give it back, in the order
// of acquiring. A step adds its undo at once, before anything else can fail.
type journal struct{ entries []*undo }

// undo is one entry: what it gives back, and how.
type undo struct {
	what string
	do   func() error
}

// add appends an entry and returns it, for drop.
func (j *journal) add(what string, do func() error) *undo {
	u := &undo{what: what, do: do}
	j.entries = append(j.entries, u)
	return u
}

// drop takes an entry out: it has been given back, or passed on to someone who will.
func (j *journal) drop(u *undo) {
	for i, entry := range j.entries {
		if entry == u {
			j.entries = append(j.entries[:i], j.entries[i+1:]...)
			return
		}
	}
}

// unwind gives everything back, newest first, telling each to undone. One that
// fails does not stop the others.
func (j *journal) unwind(undone func(what string, err error)) error {
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
