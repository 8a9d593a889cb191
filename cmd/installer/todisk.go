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
	sourceName  string
	config      configFlags
	output      outputFlags
}

func (f *toDiskFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	f.image.addTo(flags)
	flags.BoolVar(&f.viaLoopback, "via-loopback", false, "the target is a raw disk file")
	flags.BoolVar(&f.wipe, "wipe", false, "overwrite what is on the target")
	flags.BoolVar(&f.yes, "yes", false, "do not ask at a terminal before something is overwritten")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything, print the plan, and write nothing")
	flags.StringVar(&f.blockSetup, "block-setup", "", "what the root stands on: direct (default: the image's configuration, or else direct)")
	flags.StringVar(&f.rootSize, "root-size", "", "size of the root partition; suffix M (default), G or T (default: the rest of the disk)")
	flags.BoolVar(&f.generic, "generic-image", false, "make the disk start under every firmware, not only this machine's kind")
	f.config.addFilesystemTo(flags)
	f.config.addTo(flags)
	f.output.addTo(cmd)
	addSourceName(flags, &f.sourceName)
}

// options checks what the flags say and makes it an installation's options.
func (f *toDiskFlags) options(device string) (install.Options, error) {
	o := install.Options{
		Device: device, ViaLoopback: f.viaLoopback, Wipe: f.wipe, DryRun: f.dryRun,
		BlockSetup: f.blockSetup, GenericImage: f.generic, WorkDir: workspaceDir, SourceName: f.sourceName,
	}
	var err error
	if err = f.image.apply(&o); err != nil {
		return o, err
	}
	if err = f.config.apply(&o); err != nil {
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
