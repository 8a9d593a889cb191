package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"installer/install"
	"installer/install/vm"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newGuestCommand makes the hidden command that build runs in its virtual machine.
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

// guestFlags are hidden flags of to-disk, by which build passes its knowledge to to-disk in the
// guest.
type guestFlags struct {
	sourceName string
	survey     string
}

func (f *guestFlags) addTo(flags *pflag.FlagSet) {
	flag{name: "source-name", hidden: true, value: "NAME", brief: "name of the source in the disk's record of its installation"}.text(flags, &f.sourceName)
	flag{name: "source-survey", hidden: true, value: "FILE", brief: "facts about the source that are known already"}.text(flags, &f.survey)
}

func (f *guestFlags) apply(o *install.Options) error {
	o.SourceName = f.sourceName
	if f.survey == "" {
		return nil
	}
	text, err := os.ReadFile(f.survey)
	if err != nil {
		return fmt.Errorf("--source-survey: %w", err)
	}
	if err := json.Unmarshal(text, &o.Survey); err != nil {
		return fmt.Errorf("--source-survey: reading %s: %w", f.survey, err)
	}
	return nil
}
