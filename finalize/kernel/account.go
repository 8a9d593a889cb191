package kernel

import (
	"fmt"
	"strings"

	"installer/disk/mounts"
)

// Account says for what the references to a superblock are.
type Account struct {
	// Active is how many references keep it alive, Count how many keep its record, see Superblock.
	Active int `json:"active"`
	Count  int `json:"count"`
	// Mounts is how many mounts it has, in whatever namespace or in none.
	Mounts int  `json:"mounts"`
	Frozen bool `json:"frozen"`
	// Contexts is how many fs contexts refer to it, as far as a process has one open.
	Contexts int `json:"contexts"`
	// Unexplained is how many references remain: they are the kernel's own, or of an fs context that
	// is under way in a socket.
	Unexplained int `json:"unexplained"`
}

// String gives the account in one line.
func (a Account) String() string {
	parts := []string{fmt.Sprintf("s_active %d", a.Active), fmt.Sprintf("mounts %d", a.Mounts)}
	if a.Frozen {
		parts = append(parts, "frozen")
	}
	if a.Contexts > 0 {
		parts = append(parts, fmt.Sprintf("fs contexts %d", a.Contexts))
	}
	text := strings.Join(parts, ", ")
	switch {
	case a.Unexplained == 1:
		text += ": 1 reference is the kernel's own"
	case a.Unexplained > 1:
		text += fmt.Sprintf(": %d references are the kernel's own", a.Unexplained)
	}
	return text
}

// Account reads the superblock of a device, whether it is mounted or not; false if there is none.
func (v *View) Account(device mounts.DevNum) (a Account, found bool, err error) {
	s, found, err := v.Superblock(device)
	if err != nil || !found {
		return a, false, err
	}
	users, err := v.UsesOf(device)
	if err != nil {
		return a, false, err
	}
	a = Account{Active: s.Active, Count: s.Count, Mounts: len(s.Mounts), Frozen: s.Frozen, Unexplained: s.Others}
	for _, u := range users.Uses {
		if u.Kind == FSContext {
			a.Contexts++
			a.Unexplained--
		}
	}
	if s.Frozen {
		a.Unexplained-- // one reference, however often it is frozen
	}
	return a, true, nil
}
