package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"installer/install/report"
)

// reportFile is where --report wants the report; an empty path is nowhere. The
// path's suffix says in which form: a page for .html and .htm, else JSON.
type reportFile struct{ path string }

// check tells early whether a report can be put there.
func (f *reportFile) check() error {
	if f.path == "" {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".installer-report-")
	if err != nil {
		return fmt.Errorf("--report: nothing can be written into %s: %w", filepath.Dir(f.path), errors.Unwrap(err))
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// write puts the report in place as a whole.
func (f *reportFile) write(r any) error {
	if f.path == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	data = append(data, '\n')
	if f.isPage() {
		var page bytes.Buffer
		if err := report.WriteHTML(&page, data); err != nil {
			return fmt.Errorf("making a page of the report: %w", err)
		}
		data = page.Bytes()
	}
	if err := replaceFile(f.path, data); err != nil {
		return fmt.Errorf("writing the report %s: %w", f.path, err)
	}
	return nil
}

func (f *reportFile) isPage() bool {
	suffix := strings.ToLower(filepath.Ext(f.path))
	return suffix == ".html" || suffix == ".htm"
}

// replaceFile puts a file in place as a whole: beside it first, then renamed.
func replaceFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".installer-report-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // fails once it is renamed
	_, err = temp.Write(data)
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
		err = os.Rename(temp.Name(), path)
	}
	return err
}
