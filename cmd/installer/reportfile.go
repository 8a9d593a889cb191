package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"installer/cmd/installer/page"
	"installer/install/outfile"

	"golang.org/x/sys/unix"
)

// reportFile is where --report wants the report; an empty path is nowhere. The
// path's suffix says in which form: a page for .html and .htm, else JSON.
type reportFile struct {
	path  string
	guard *outfile.Guard
	file  *outfile.File
}

// open makes the file of the report, at the begin of a run: a relative path is that of the
// directory that the user was in, and a file that must not be replaced is refused. The refusal is a
// usage error.
func (f *reportFile) open(guard *outfile.Guard) (err error) {
	if f.path == "" || f.file != nil {
		return nil
	}
	f.guard = guard
	if f.file, err = outfile.Open(f.path, replaceable(guard)); err != nil {
		return &usageError{fmt.Errorf("--report: %w", err)}
	}
	return nil
}

// try opens the file and closes it again, for a command that must not hold its directory meanwhile.
func (f *reportFile) try(guard *outfile.Guard) error {
	if err := f.open(guard); err != nil || f.file == nil {
		return err
	}
	file := f.file
	f.file = nil
	return file.Close()
}

// replaceable are the bounds of reports and pages.
func replaceable(guard *outfile.Guard) outfile.Options {
	return outfile.Options{Guard: guard, Mine: page.Recognises, Streams: true}
}

// write puts the report in place as a whole, and ends the file.
func (f *reportFile) write(r any) (err error) {
	if f.path == "" {
		return nil
	}
	if err := f.open(f.guard); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.file.Close())
		if err != nil {
			err = &reportError{path: f.path, cause: err}
		}
	}()
	data, err := f.encode(r)
	if err != nil {
		return err
	}
	if _, err := f.file.Write(data); err != nil {
		return err
	}
	return f.file.Commit()
}

func (f *reportFile) encode(r any) ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding it: %w", err)
	}
	data = append(data, '\n')
	if suffix := strings.ToLower(filepath.Ext(f.path)); suffix != ".html" && suffix != ".htm" {
		return data, nil
	}
	var html bytes.Buffer
	if err := page.WriteHTML(&html, data); err != nil {
		return nil, fmt.Errorf("making a page of it: %w", err)
	}
	return html.Bytes(), nil
}

// reportError says that a report could not be written.
type reportError struct {
	path  string
	cause error
}

func (e *reportError) Error() string {
	return fmt.Sprintf("writing the report %s: %v", e.path, e.cause)
}
func (e *reportError) Unwrap() error { return e.cause }

// Advice is the remedy of a full file system.
func (e *reportError) Advice() string {
	if !errors.Is(e.cause, unix.ENOSPC) && !errors.Is(e.cause, unix.EDQUOT) {
		return ""
	}
	return "make room in " + filepath.Dir(e.path) + ", or name a file elsewhere"
}
