package vm

import "fmt"

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
	Console string // the last lines of it
	Err     error
}

func (e *MachineError) Error() string {
	text := fmt.Sprintf("the virtual machine (%s) failed in its phase %q: %v", e.Accel, e.Phase, e.Err)
	if e.Console != "" {
		text += "\nThe last lines of its console:\n" + e.Console
	}
	return text
}

func (e *MachineError) Unwrap() error { return e.Err }

// GuestError is an installer that ran in the guest and failed.
type GuestError struct {
	Status  int    // its exit status, with the meaning that it has for every command
	Message string // what it said
	Console string // the last lines of the guest's console, where they may help
}

func (e *GuestError) Error() string {
	text := "in the virtual machine: " + e.Message
	if e.Console != "" {
		text += "\nThe last lines of its console:\n" + e.Console
	}
	return text
}
