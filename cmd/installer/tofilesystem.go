package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"installer/install"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// toFilesystemFlags are the flags of to-filesystem as given.
type toFilesystemFlags struct {
	image        sourceFlags
	rootSpec     string
	bootSpec     string
	replace      string
	skipFinalize bool
	acknowledge  bool
	yes          bool
	dryRun       bool
	generic      bool
	config       configFlags
	output       outputFlags
}

func (f *toFilesystemFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	f.image.addTo(flags)
	flags.StringVar(&f.rootSpec, "root-mount-spec", "", "value of root= (default: UUID=…)\n"+
		"Such as LABEL=root; empty: none. Default: what the image's configuration says, or else the UUID of what is mounted.")
	flags.StringVar(&f.bootSpec, "boot-mount-spec", "", "the same for a separate /boot\n"+
		"Where the system mounts it from; empty: left to the image. Default: as for the root.")
	flags.StringVar(&f.replace, "replace", "", "what becomes of what is there\n"+
		"wipe deletes all of it, alongside only what is in /boot and the EFI system partition. Without it a file system that is not empty is refused.")
	flags.BoolVar(&f.skipFinalize, "skip-finalize", false, "leave them writable, and prove nothing\n"+
		"The file systems are neither made read-only nor searched for holders.")
	flags.BoolVar(&f.acknowledge, "acknowledge-destructive", false, "allow it on the running system's root\n"+
		"For --replace=alongside.")
	flags.BoolVar(&f.yes, "yes", false, "do not ask at a terminal first")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan, and write nothing")
	flags.BoolVar(&f.generic, "generic-image", false, "start under every firmware, not just this one\n"+
		"Install the boot loader for every firmware that has a place for it, not only for the kind that started this machine.")
	f.config.addTo(flags)
	f.output.addTo(cmd)
}

// options checks what the flags say and makes it an installation's options.
func (f *toFilesystemFlags) options(root string, given *pflag.FlagSet) (install.Options, install.MountedOptions, error) {
	o := install.Options{DryRun: f.dryRun, GenericImage: f.generic}
	m := install.MountedOptions{SkipFinalize: f.skipFinalize, AcknowledgeDestructive: f.acknowledge}
	var err error
	if err = f.image.apply(&o); err != nil {
		return o, m, err
	}
	if err = f.config.apply(&o); err != nil {
		return o, m, err
	}
	if m.Replace, err = install.ParseReplace(f.replace); err != nil {
		return o, m, fmt.Errorf("--replace: %w", err)
	}
	// An empty one is not the same as none.
	if given.Changed("root-mount-spec") {
		m.RootMountSpec = &f.rootSpec
	}
	if given.Changed("boot-mount-spec") {
		m.BootMountSpec = &f.bootSpec
	}
	if m.Root, err = filepath.Abs(root); err != nil {
		return o, m, fmt.Errorf("finding the target: %w", err)
	}
	return o, m, errors.Join(o.Validate(), m.Validate())
}

func newToFilesystemCommand(stdout, stderr io.Writer) *cobra.Command {
	var flags toFilesystemFlags
	cmd := &cobra.Command{
		Use:   "to-filesystem [flags] ROOT",
		Short: "Install an image on file systems that are mounted already",
		Long: `Installs an image on the file systems that you have made and mounted: the root on
ROOT and, where there are such, the boot file system on ROOT/boot and the EFI
system partition on ROOT/boot/efi or ROOT/efi. They stay mounted, in the end
read-only and with nobody holding them, so that umount succeeds at once;
'installer finalize ROOT' unmounts them, and proves that the kernel let go.

A boot loader needs the EFI system partition mounted (UEFI), or a BIOS boot
partition on the disk beneath.`,
		Example: `  installer to-filesystem --source-imgref oci:myos:latest /mnt
  installer to-filesystem --source-imgref oci:myos:latest --replace=wipe --root-mount-spec LABEL=root /mnt`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runToFilesystem(cmd, flags, args[0], stdout, stderr)
		},
	}
	flags.addTo(cmd)
	return cmd
}

func runToFilesystem(cmd *cobra.Command, flags toFilesystemFlags, root string, stdout, stderr io.Writer) error {
	o, m, err := flags.options(root, cmd.Flags())
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
	if os.Geteuid() != 0 {
		return errors.New("not root: the files of a system belong to root and others; use sudo, or a container with --privileged")
	}
	// Mounts are the kernel's by the path that they resolve to.
	if m.Root, err = filepath.EvalSymlinks(m.Root); err != nil {
		return fmt.Errorf("finding the target: %w", err)
	}
	if err := settle(); err != nil {
		return err
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	report, err := install.ToFilesystem(ctx, o, m, out.event)
	return errors.Join(err, out.finish(report))
}
