package main

import (
	"errors"

	"installer/install/vm"

	"github.com/spf13/cobra"
)

// newGuestCommand is what build runs in its virtual machine; it is for nobody else.
func newGuestCommand() *cobra.Command {
	return &cobra.Command{
		Use:    vm.GuestCommand,
		Hidden: true,
		Args:   usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := vm.RunGuest(args); err != nil {
				return err
			}
			return errors.New("the machine was switched off, and yet goes on")
		},
	}
}
