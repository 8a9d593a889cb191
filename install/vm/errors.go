package vm

import (
	"errors"
	"fmt"
	"strings"
)

// MissingProgramError is a program of the host that a build needs.
type MissingProgramError struct {
	Program        string
	Debian, Fedora string // packages that bring it
	Err            error
}

func (e *MissingProgramError) Error() string {
	return fmt.Sprintf("%s is missing on this machine; to do: install the package %s (Debian) or %s (Fedora)", e.Program, e.Debian, e.Fedora)
}

func (e *MissingProgramError) Unwrap() error { return e.Err }

// MachineError is a virtual machine that did not come to a proper end.
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

// consoleLines are errors, so that whoever prints them knows which line breaks are meant.
func consoleLines(console string) []error {
	if console == "" {
		return nil
	}
	lines := []error{errors.New("the last lines of its console:")}
	for line := range strings.SplitSeq(console, "\n") {
		lines = append(lines, errors.New("  | "+line))
	}
	return lines
}
