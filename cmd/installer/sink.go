package main

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// sink passes on the standard output of a command and remembers the first write that failed: a
// command whose output was lost has failed, whatever else it did.
type sink struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.remember(err)
	return n, err
}

func (s *sink) remember(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && err != nil {
		s.err = &outputError{err}
	}
}

// close closes standard output, since some file systems report a failed write only then, and
// returns the first error.
func (s *sink) close() error {
	if file, isFile := s.Writer.(*os.File); isFile && file == os.Stdout {
		s.remember(file.Close())
	}
	return s.err
}

// outputError says that standard output could not be written.
type outputError struct{ cause error }

func (e *outputError) Error() string { return fmt.Sprintf("writing standard output: %v", e.cause) }
func (e *outputError) Unwrap() error { return e.cause }
