package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo identifies the build. Fields that the Go tool did not record are empty.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commit_time,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built with changes that were not committed
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

// readVersion reads the records of the Go tool (go help buildvcs).
func readVersion(info *debug.BuildInfo) versionInfo {
	v := versionInfo{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info == nil {
		return v
	}
	if main := info.Main.Version; main != "" && main != "(devel)" {
		v.Version = main
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// String is the version in one line.
func (v versionInfo) String() string {
	text := fmt.Sprintf("installer %s", v.Version)
	if v.Commit != "" {
		text += fmt.Sprintf(" (commit %.12s of %s", v.Commit, v.Time)
		if v.Modified {
			text += ", changed since"
		}
		text += ")"
	}
	return text + fmt.Sprintf(", %s, %s/%s", v.Go, v.OS, v.Arch)
}

func newVersionCommand(stdout io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version [flags]",
		Short: "Print which build of the installer this is",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return printVersion(stdout, asJSON)
		},
	}
	jsonFlag().toggle(cmd.Flags(), &asJSON)
	return cmd
}

func printVersion(stdout io.Writer, asJSON bool) (err error) {
	info, _ := debug.ReadBuildInfo() // nil without one
	if v := readVersion(info); asJSON {
		err = json.NewEncoder(stdout).Encode(v)
	} else {
		_, err = fmt.Fprintln(stdout, v)
	}
	if err != nil {
		return fmt.Errorf("printing the version: %w", err)
	}
	return nil
}
