package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const longHelp = `installer turns a bootable OS image (an OCI image that carries its own kernel)
into a bootable disk, and hands that disk back provably released.

Exit status:
  0  done
  1  failed
  2  wrong usage
  3  the target is held (the message says by whom)
  4  the target was refused (in use, too small, not empty without --wipe)
  5  the source was refused`

func newRootCommand(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "installer",
		Short:         "Turn a bootable OS image into a bootable disk, provably released",
		Long:          longHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{fmt.Errorf("no command given")}
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newToDiskCommand(stdout, stderr), newToFilesystemCommand(stdout, stderr))
	root.AddCommand(newBuildCommand(stdout, stderr), newGuestCommand())
	root.AddCommand(newFinalizeCommand(stdout))
	root.AddCommand(newHoldersCommand(stdout))
	root.AddCommand(newVerifyCommand(stdout, stderr))
	root.AddCommand(newPrintConfigCommand(stdout, stderr))
	root.AddCommand(newReportCommand(stdout), newSchemaCommand(stdout), newVersionCommand(stdout), newManCommand(stdout))
	addHelp(root)
	addCompletions(root)
	return root
}

// usageArgs makes a positional argument check answer with a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		_, names, named := strings.Cut(strings.ReplaceAll(cmd.Use, " [flags]", ""), " ")
		switch {
		case !cmd.HasParent():
			err = fmt.Errorf("there is no command %q", args[0])
		case named && len(args) == 0:
			err = fmt.Errorf("%s takes %s, and nothing was given", cmd.Name(), names)
		case named:
			err = fmt.Errorf("%s takes %s, and %d arguments were given: %q", cmd.Name(), names, len(args), args)
		default:
			err = fmt.Errorf("%s takes no arguments, and %q was given", cmd.Name(), args)
		}
		return &usageError{err}
	}
}
