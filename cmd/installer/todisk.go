package main

import (
	"context"
	"io"

	"installer/disk"
	"installer/install"
	"installer/install/outfile"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// workspaceDir is where the private mount namespace gets its tmpfs.
const workspaceDir = "/run/installer"

const toDiskHelp = `Partitions a disk, makes the file systems, deploys the image, installs the boot loader,
and releases the disk: "Installation complete" is printed after the last proof that nothing
holds it, and not before.

DEVICE is a whole block device; with --via-loopback it is a raw disk file that exists and has
the size of the disk. A target that is in use, too small or (without --wipe) not empty is
refused before the first write. At a terminal the content that will be lost is shown, and the
user must confirm.

It must run as root, and works in a mount namespace of its own. A run that is killed leaves
no mount, no loop device and no process; the same command with --wipe starts anew.`

// toDiskFlags are the flags of to-disk as given.
type toDiskFlags struct {
	installFlags
	viaLoopback bool
	wipe        bool
	guest       guestFlags
}

func (f *toDiskFlags) addTo(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flag{name: "via-loopback", group: groupTarget, brief: "the target is a raw disk file"}.toggle(flags, &f.viaLoopback)
	flag{name: "wipe", group: groupTarget, brief: "overwrite existing content of the target"}.toggle(flags, &f.wipe)
	f.config.addDiskTo(flags)
	f.config.addBlockSetupTo(flags)
	f.installFlags.addTo(flags)
	f.guest.addTo(flags)
}

// options checks the flags and returns the options of the installation.
func (f *toDiskFlags) options(device string) (install.Options, error) {
	o := install.Options{Device: device, ViaLoopback: f.viaLoopback, Wipe: f.wipe, WorkDir: workspaceDir}
	if err := f.installFlags.apply(&o); err != nil {
		return o, err
	}
	if err := f.guest.apply(&o); err != nil {
		return o, err
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
			return runToDisk(cmd.Context(), flags, args[0], streams{stdout, stderr})
		},
	}
	flags.addTo(cmd.Flags())
	return cmd
}

func runToDisk(parent context.Context, flags toDiskFlags, device string, s streams) error {
	o, err := flags.options(device)
	if err != nil {
		return &usageError{err}
	}
	return flags.perform(parent, s, o, job{
		protect: func(g *outfile.Guard) error {
			if err := requireTarget(device); err != nil {
				return err
			}
			return g.AddFile("the target", device)
		},
		enter: enterWorkplace,
		run: func(ctx context.Context, o install.Options, observe install.Observer) (*install.Report, error) {
			report, err := install.ToDisk(ctx, o, observe)
			return report, adviseOnSize(err, o)
		},
	})
}

// adviseOnSize adds the remedy for a target that is too small.
func adviseOnSize(err error, o install.Options) error {
	switch {
	case !is[*disk.TooSmallError](err):
		return err
	case o.RootSize > 0:
		return &advisedError{err, "take a larger disk or another --root-size"}
	case o.ViaLoopback:
		return &advisedError{err, "make the file larger: truncate -s SIZE FILE"}
	}
	return &advisedError{err, "take a larger disk"}
}
