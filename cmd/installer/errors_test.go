package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"installer/disk"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// Every error of a kind that a user can do something about says what.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("anything"), ""},
		{errors.New("x; to do: y"), ""},
		{&usageError{fs.ErrNotExist}, ""},
		{fmt.Errorf("interrupted: %w", context.Canceled), "start anew"},
		{&disk.TooSmallError{}, "larger disk"},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, "check the path"},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.ENOSPC}, "make room"},
		{&image.SourceError{Err: fs.ErrNotExist}, "path of the image"},
		{&disk.MissingProgramError{Program: "mkfs", Package: "p", Err: fs.ErrNotExist}, ""},
	} {
		got := advice(fmt.Errorf("step: %w", c.err))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestDetails(t *testing.T) {
	e := &disk.InUseError{Path: "/dev/x", Uses: []disk.Use{{What: "a", Why: "b", Remedy: "c"}, {What: "d", Why: "e"}}}
	if got := details(fmt.Errorf("step: %w", e)); len(got) != 2 || got[0] != "a: b (c)" || got[1] != "d: e" {
		t.Errorf("%q", got)
	}
	if got := details(fs.ErrNotExist); got != nil {
		t.Errorf("%q", got)
	}
}

func TestCauses(t *testing.T) {
	inner := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	got := causes(errors.Join(fmt.Errorf("step: %w", inner), errors.New("other")))
	want := []string{"step: open x: file does not exist (*fmt.wrapError)", "open x: file does not exist (*fs.PathError)", "file does not exist (*errors.errorString)", "other (*errors.errorString)"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	var with, without strings.Builder
	args := []string{"to-disk", "--source-imgref", "floppy:x", "y"}
	run(args, io.Discard, &without)
	if run(append(args, "-v"), io.Discard, &with) != exitUsage || !strings.HasPrefix(without.String(), "installer: error: --source-imgref: ") ||
		strings.Contains(without.String(), "caused by") || !strings.Contains(with.String(), "\n  caused by: ") || !strings.HasSuffix(with.String(), "Try 'installer to-disk --help'.\n") {
		t.Errorf("%s%s", with.String(), without.String())
	}
}

// A command line that is no command line is answered in the words of its help.
func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                  "no command given",
		"nonsense":          `there is no command "nonsense"`,
		"to-disk":           "to-disk takes DEVICE, and nothing was given",
		"to-disk a b":       `to-disk takes DEVICE, and 2 arguments were given: ["a" "b"]`,
		"build a":           `build takes IMAGE OUTPUT, and 1 arguments were given: ["a"]`,
		"version x":         `version takes no arguments, and ["x"] was given`,
		"to-disk --nonsens": "unknown flag: --nonsens",
	} {
		var out strings.Builder
		if status := run(strings.Fields(line), io.Discard, &out); status != exitUsage || !strings.Contains(out.String(), want+"\n") {
			t.Errorf("%q: status %d, %s", line, status, out.String())
		}
	}
}
