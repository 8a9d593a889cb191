package main

import (
	"errors"

	"installer/install/vm"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// addSourceName adds the flag by which build has the disk record what its user
// calls the source. What the source is in the guest means nothing to anyone else.
func addSourceName(flags *pflag.FlagSet, name *string) {
	const flag = "source-name"
	flags.StringVar(name, flag, "", "what the disk's record of its installation calls the source")
	flags.Lookup(flag).Hidden = true
}
