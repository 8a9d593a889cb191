package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"installer/install"

	"github.com/spf13/cobra"
)

// workspaceDir is where the private mount namespace gets its tmpfs.
const workspaceDir = "/run/installer"

const toDiskHelp = `Partitions a disk, makes the file systems, deploys the image, installs the boot loader,
and releases the disk: "Installation complete" is printed after the last proof that nothing
holds it, and not before.

DEVICE is a whole block device; with --via-loopback it is a raw disk file that exists and has
the size that the disk is to have. What is in use, too small or (without --wipe) not empty is
refused before the first write. At a terminal it is shown what will be lost, and asked.

It must run as root, and works in a mount namespace of its own. A run that is killed leaves
no mount, no loop device and no process; the same command with --wipe starts anew.`

// toDiskFlags are the flags of to-disk as given.
type toDiskFlags struct {
	viaLoopback bool
	image       sourceFlags
	rootSize    string
	blockSetup  string
	wipe        bool
	yes         bool
	dryRun      bool
	generic     bool
	guest       guestFlags
	config      configFlags
	output      outputFlags
}

func (f *toDiskFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	f.image.addTo(flags)
	flags.BoolVar(&f.viaLoopback, "via-loopback", false, "the target is a raw disk file")
	flags.BoolVar(&f.wipe, "wipe", false, "overwrite what is on the target")
	flags.BoolVar(&f.yes, "yes", false, "do not ask at a terminal first")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan, and write nothing")
	flags.StringVar(&f.blockSetup, "block-setup", "", "what the root stands on: direct (default)\n"+
		"Default: what the image's configuration says, or else direct.")
	flags.StringVar(&f.rootSize, "root-size", "", "of the root partition (default: the rest)\n"+
		"With the suffix M (default), G or T.")
	flags.BoolVar(&f.generic, "generic-image", false, "start under every firmware, not just this one\n"+
		"Install the boot loader for every kind of firmware, not only for the one that started this machine.")
	f.config.addFilesystemTo(flags)
	f.config.addTo(flags)
	f.output.addTo(cmd)
	f.guest.addTo(flags)
}

// options checks what the flags say and makes it an installation's options.
func (f *toDiskFlags) options(device string) (install.Options, error) {
	o := install.Options{
		Device: device, ViaLoopback: f.viaLoopback, Wipe: f.wipe, DryRun: f.dryRun,
		BlockSetup: f.blockSetup, GenericImage: f.generic, WorkDir: workspaceDir,
	}
	var err error
	if err = f.image.apply(&o); err != nil {
		return o, err
	}
	if err = f.config.apply(&o); err != nil {
		return o, err
	}
	if err = f.guest.apply(&o); err != nil {
		return o, err
	}
	if f.rootSize != "" {
		if o.RootSize, err = install.ParseSize(f.rootSize); err != nil {
			return o, fmt.Errorf("--root-size: %w", err)
		}
	}
	return o, o.Validate()
}

func newToDiskCommand(stdout, stderr io.Writer) *cobra.Command {
	var flags toDiskFlags
	cmd := &cobra.Command{
		Use:   "to-disk [flags] DEVICE",
		Short: "Partition a disk, install an image on it and release it",
		Example: `  installer to-disk --source-imgref oci:myos:latest --wipe /dev/vda
  installer to-disk --source-imgref oci:myos:latest --via-loopback --generic-image disk.raw`,
		Long: toDiskHelp,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runToDisk(cmd.Context(), flags, args[0], stdout, stderr)
		},
	}
	flags.addTo(cmd)
	return cmd
}

func runToDisk(parent context.Context, flags toDiskFlags, device string, stdout, stderr io.Writer) error {
	o, err := flags.options(device)
	if err != nil {
		return &usageError{err}
	}
	if !flags.yes {
		o.Confirm = confirmAtTerminal(os.Stdin, stderr)
	}
	out, err := flags.output.open(stdout, stderr)
	if err != nil {
		return &usageError{err}
	}
	if err := enterWorkplace(); err != nil {
		return err
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	report, err := install.ToDisk(ctx, o, out.event)
	return errors.Join(err, out.finish(report))
}
