package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"installer/install/outfile"

	"golang.org/x/sys/unix"
)

// MissingProgramError is a program of the host that a build needs.
type MissingProgramError struct {
	Program        string
	Debian, Fedora string // packages that bring it
	Err            error
}

func (e *MissingProgramError) Error() string { return e.Program + " was not found" }

// Advice is the remedy.
func (e *MissingProgramError) Advice() string {
	return fmt.Sprintf("install the package %s (Debian) or %s (Fedora)", e.Debian, e.Fedora)
}

func (e *MissingProgramError) Unwrap() error { return e.Err }

// MachineError is a virtual machine that did not end properly.
type MachineError struct {
	Phase   Phase
	Accel   Accel
	Console string // its last lines
	Err     error
}

func (e *MachineError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the failure, and the console as errors of one line each.
func (e *MachineError) Unwrap() []error {
	err := fmt.Errorf("the virtual machine (%s) failed in its phase %q: %w", e.Accel, e.Phase, e.Err)
	return append([]error{err}, consoleLines(e.Console)...)
}

// GuestError is an installer that ran in the guest and failed.
type GuestError struct {
	Status  int    // its exit status, of 1 to 5, with the meaning that it has for every command
	Message string // of the installer
	Console string // the last lines of the guest's console, where they may help
}

func (e *GuestError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the message, and the console as errors of one line each.
func (e *GuestError) Unwrap() []error {
	err := errors.New("in the virtual machine: " + e.Message)
	return append([]error{err}, consoleLines(e.Console)...)
}

// consoleLines returns the console as errors, because a printer keeps the line breaks between
// joined errors only.
func consoleLines(console string) []error {
	if console == "" {
		return nil
	}
	lines := []error{errors.New("the last lines of its console follow")}
	for line := range strings.SplitSeq(console, "\n") {
		lines = append(lines, errors.New("  | "+line))
	}
	return lines
}

// OutputRefusedError is an OUTPUT that cannot be made. Nothing was begun.
type OutputRefusedError struct {
	Path string
	Err  error
}

func (e *OutputRefusedError) Error() string {
	return fmt.Sprintf("OUTPUT %s cannot be made: %v", e.Path, e.Err)
}

func (e *OutputRefusedError) Unwrap() error { return e.Err }

// Advice is the remedy.
func (e *OutputRefusedError) Advice() string {
	switch {
	case errors.Is(e.Err, outfile.ErrNotRegular):
		return "name a file; installer to-disk writes to devices"
	case errors.Is(e.Err, fs.ErrNotExist):
		return "make the directory first, or name another"
	case errors.Is(e.Err, fs.ErrPermission), errors.Is(e.Err, unix.EROFS):
		return "name a file in a directory that you may write to"
	}
	return ""
}

// DirFullError is a file system without room for the output, or for the files that a build writes
// beside it.
type DirFullError struct {
	Dir  string
	Temp bool  // Dir holds temporary files
	Err  error // nil: QEMU reported it
}

func (e *DirFullError) Error() string {
	text := fmt.Sprintf("the file system of %s is full", e.Dir)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *DirFullError) Unwrap() error { return e.Err }

// Advice is the remedy.
func (e *DirFullError) Advice() string {
	if e.Temp {
		return fmt.Sprintf("make room in %s, or have TMPDIR name a directory with more", e.Dir)
	}
	return fmt.Sprintf("make room in %s, or name an OUTPUT where there is more: a build needs room there for the unpacked image and for the output", e.Dir)
}
