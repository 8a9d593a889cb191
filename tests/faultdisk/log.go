package faultdisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Log is everything that changed a disk, in order, and when it was flushed.
type Log struct {
	size int64
	data *os.File

	mu      sync.Mutex
	end     int64
	entries []entry
}

type entry struct {
	Op
	at int64 // of the data in the log's file
}

func (l *Log) add(op Op, data []byte) error {
	if op.Kind == Read {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.data.WriteAt(data, l.end); err != nil {
		return err
	}
	l.entries = append(l.entries, entry{op, l.end})
	l.end += int64(len(data))
	return nil
}

// Len is the number of changes and flushes so far.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// Flushed is the number of changes and flushes up to the last flush before n, that flush included;
// 0 if there is none.
func (l *Log) Flushed(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; n > 0; n-- {
		if l.entries[n-1].Kind == Flush {
			return n
		}
	}
	return 0
}

// Replay makes the file name, which must not exist, as a power cut after the first n changes could
// have left the disk: with all that was flushed by then, and those later requests that survives
// keeps. A nil survives keeps all.
func (l *Log) Replay(name string, n int, survives func() bool) error {
	flushed := l.Flushed(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = out.Truncate(l.size)
	for i, e := range l.entries[:n] {
		if err != nil {
			break
		}
		if e.Kind != Flush && (i < flushed || survives == nil || survives()) {
			err = l.redo(out, e)
		}
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("replaying %d changes to %s: %w", n, name, err)
	}
	return nil
}

func (l *Log) redo(out *os.File, e entry) error {
	if e.Kind == Zero {
		return apply(out, e.Op, nil)
	}
	data := make([]byte, e.Len)
	if _, err := io.ReadFull(io.NewSectionReader(l.data, e.at, e.Len), data); err != nil {
		return err
	}
	return apply(out, e.Op, data)
}
