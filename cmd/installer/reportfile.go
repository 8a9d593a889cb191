package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// reportFile is where --report wants the report; an empty path is nowhere.
type reportFile struct{ path string }

// check tells early whether a report can be put there.
func (f *reportFile) check() error {
	if f.path == "" {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".installer-report-")
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// write puts the report in place as a whole: beside it first, then renamed.
func (f *reportFile) write(r any) error {
	if f.path == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".installer-report-")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	defer os.Remove(temp.Name()) // fails once it is renamed
	_, err = temp.Write(append(data, '\n'))
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("writing the report %s: %w", f.path, err)
	}
	return nil
}
