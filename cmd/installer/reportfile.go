package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"installer/install/outfile"
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
	if info, err := os.Stat(f.path); err == nil && info.IsDir() {
		return fmt.Errorf("--report: %s is a directory; name a file", f.path)
	}
	file, err := outfile.Create(f.path)
	if errors.Is(err, outfile.ErrNotRegular) {
		return nil // a pipe or a terminal
	}
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return file.Close()
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
	if err := outfile.Write(f.path, data); err != nil {
		return fmt.Errorf("writing the report %s: %w", f.path, err)
	}
	return nil
}

func (f *reportFile) isPage() bool {
	suffix := strings.ToLower(filepath.Ext(f.path))
	return suffix == ".html" || suffix == ".htm"
}
