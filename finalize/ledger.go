package finalize

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Ledger records every handle that the program has open on the target. It is safe for concurrent
// use.
type Ledger struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]opened
}

type opened struct {
	kind, name string
	stack      []uintptr
}

// Entry is a handle that is still open.
type Entry struct {
	Kind     string   `json:"kind"`      // "fd", "map", "lock"
	Name     string   `json:"name"`      // a path or an object, for people
	OpenedAt string   `json:"opened_at"` // "file:line function" of the caller of the package that opened it
	Stack    []string `json:"stack"`     // all frames, innermost first
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{open: map[uint64]opened{}} }

// Opened records a handle of the given kind on name. The caller calls released when it closes the
// handle; a second call does nothing. The caller's stack is kept as addresses, which is cheap.
func (l *Ledger) Opened(kind, name string) (released func()) {
	var pcs [32]uintptr
	n := runtime.Callers(2, pcs[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.next
	l.next++
	l.open[id] = opened{kind, name, slices.Clone(pcs[:n])}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, id)
	}
}

// Open returns the open handles, the oldest first.
func (l *Ledger) Open() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]uint64, 0, len(l.open))
	for id := range l.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	entries := make([]Entry, 0, len(ids))
	for _, id := range ids {
		entries = append(entries, l.open[id].entry())
	}
	return entries
}

func (o opened) entry() Entry {
	e := Entry{Kind: o.kind, Name: o.name}
	frames := runtime.CallersFrames(o.stack)
	inside := ""
	for {
		frame, more := frames.Next()
		text := fmt.Sprintf("%s:%d %s", frame.File, frame.Line, frame.Function)
		e.Stack = append(e.Stack, text)
		if inside == "" {
			inside = packageOf(frame.Function)
		}
		if e.OpenedAt == "" && packageOf(frame.Function) != inside {
			e.OpenedAt = text
		}
		if !more {
			break
		}
	}
	if e.OpenedAt == "" || strings.Contains(e.OpenedAt, " runtime.") {
		e.OpenedAt = e.Stack[0] // opened by the package itself, or at the top of a goroutine
	}
	return e
}

// packageOf returns the package path of a function as runtime names it:
// "path/pkg.(*Type).Method".
func packageOf(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	if dot := strings.IndexByte(function[slash:], '.'); dot >= 0 {
		return function[:slash+dot]
	}
	return function
}

// String returns the handle, the place that opened it and, where a package opens handles for its
// callers, the caller.
func (e Entry) String() string {
	text := fmt.Sprintf("%s %s, opened at %s", e.Kind, e.Name, e.Stack[0])
	if e.OpenedAt != e.Stack[0] {
		text += ", called from " + e.OpenedAt
	}
	return text
}
