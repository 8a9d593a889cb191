package vm

import (
	"fmt"

	"installer/install/vm/guest"
	"installer/install/vm/internal/wire"
)

// GuestCommand is the command of the installer in the guest.
const GuestCommand = wire.GuestCommand

// RunGuest runs that command with its arguments. It returns only on an error.
func RunGuest(args []string) error {
	switch {
	case args[0] == wire.GuestInit:
		return guest.Init()
	case args[0] == wire.GuestContainer && len(args) == 2:
		return guest.Container(args[1])
	}
	return fmt.Errorf("%q is no part of a virtual machine", args[0])
}
