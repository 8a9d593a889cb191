package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"installer/rootfs/image"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const longHelp = `installer turns a bootable OS image (an OCI image that carries its own kernel)
into a bootable disk, and hands that disk back provably released.

Exit status:
  0  done
  1  failed
  2  wrong usage
  3  the target is held (the message names the holder)
  4  the target was refused (not there, in use, too small, not empty)
  5  the source was refused (not there, damaged, not bootable)`

func newRootCommand(stdout, stderr io.Writer) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:           "installer",
		Short:         "Turn a bootable OS image into a bootable disk, provably released",
		Long:          longHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return printVersion(stdout, false)
			}
			return &usageError{errors.New("no command given")}
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	flag{name: "version", brief: "print the version"}.toggle(root.Flags(), &version)
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

// flagError makes the refusal of a flag a usage error, and proposes the flag that a mistyped one
// probably stands for.
func flagError(cmd *cobra.Command, err error) error {
	var refused *pflag.InvalidValueError
	if errors.As(err, &refused) {
		return &usageError{fmt.Errorf("--%s: %w", refused.GetFlag().Name, errors.Unwrap(refused))}
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		for _, f := range visibleFlags(cmd) {
			names = append(names, "--"+f.Name)
		}
		err = fmt.Errorf("%w%s", err, didYouMean("--"+unknown.GetSpecifiedName(), names))
	}
	return &usageError{err}
}

// usageArgs makes a positional argument check answer with a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		if !cmd.HasParent() {
			return &usageError{unknownCommand(cmd, args[0])}
		}
		takes := "no arguments"
		if _, names, named := strings.Cut(strings.ReplaceAll(cmd.Use, " [flags]", ""), " "); named {
			takes = names
		}
		given := "no argument was given"
		switch {
		case len(args) == 1:
			given = fmt.Sprintf("1 argument was given: %q", args[0])
		case len(args) > 1:
			given = fmt.Sprintf("%d arguments were given: %q", len(args), args)
		}
		return &usageError{fmt.Errorf("%s takes %s, and %s%s", cmd.Name(), takes, given, misplacedImage(cmd, args))}
	}
}

// unknownCommand proposes the command that a mistyped one probably stands for.
func unknownCommand(root *cobra.Command, typed string) error {
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("there is no command %q%s", typed, didYouMean(typed, names))
}

// misplacedImage explains an image among the arguments of a command that takes it by a flag.
func misplacedImage(cmd *cobra.Command, args []string) string {
	if cmd.Flags().Lookup("source-imgref") == nil {
		return ""
	}
	for _, arg := range args {
		if _, err := image.ParseRef(arg); err == nil {
			return fmt.Sprintf("; give the image by --source-imgref %s", arg)
		}
	}
	return ""
}
