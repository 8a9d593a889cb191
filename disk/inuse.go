package disk

import (
	"fmt"
	"strings"
)

// Use is one reason why a disk may not be written.
type Use struct {
	What   string // the disk, or the partition of it: "/dev/vda2"
	Why    string // "mounted at /boot"
	Remedy string // what to do about it
}

func (u Use) String() string {
	s := u.What + ": " + u.Why
	if u.Remedy != "" {
		s += " (" + u.Remedy + ")"
	}
	return s
}

// InUseError refuses a disk that something else uses or that cannot be written. Nothing was written.
type InUseError struct {
	Path string
	Uses []Use
	Err  error // the system call's error, where one told
}

func (e *InUseError) Error() string {
	parts := make([]string, len(e.Uses))
	for i, u := range e.Uses {
		parts[i] = u.String()
	}
	return fmt.Sprintf("%s is in use: %s", e.Path, strings.Join(parts, "; "))
}

func (e *InUseError) Unwrap() error { return e.Err }

// RefusedError refuses a path that can never be an installation's disk, such as a partition.
type RefusedError struct {
	Path   string
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s cannot be installed to: %s", e.Path, e.Reason)
}
