package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"installer/install"
	"installer/install/vm"
	"installer/rootfs/image"

	"github.com/spf13/cobra"
)

// buildFlags are the flags of build as given.
type buildFlags struct {
	image    sourceFlags
	rootSize string
	format   string
	diskSize string
	compress bool
	accel    string
	memory   string
	dryRun   bool
	config   configFlags
	output   outputFlags
}

func (f *buildFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.format, "format", "", "format of OUTPUT: qcow2 or raw\n"+
		"Default: raw for a name in .raw or .img, else qcow2.")
	flags.StringVar(&f.diskSize, "disk-size", "10G", "size of the disk (default 10G)\n"+
		"With the suffix M (default), G or T.")
	flags.BoolVar(&f.compress, "compress", false, "compress the qcow2")
	flags.StringVar(&f.rootSize, "root-size", "", "of the root partition (default: the rest)\n"+
		"With the suffix M (default), G or T.")
	flags.StringVar(&f.accel, "accel", string(vm.AccelAuto), "auto (default), kvm or tcg\n"+
		"Hardware virtualisation, or emulation, which is slow; auto tries the first, and takes the other where that does not work.")
	flags.StringVar(&f.memory, "memory", "1G", "its memory (default 1G)\n"+
		"With the suffix M (default) or G.")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what would be done, and touch nothing")
	f.image.addFollowedTo(flags)
	f.config.addFilesystemTo(flags)
	f.config.addTo(flags)
	f.output.addTo(cmd)
}

// options checks what the flags say and makes it the options of a build.
func (f *buildFlags) options(source, output string) (vm.Options, error) {
	o := vm.Options{Output: output, Compress: f.compress, Install: install.Options{GenericImage: true}}
	f.image.source = source
	err := f.image.apply(&o.Install)
	if err != nil {
		return o, err
	}
	if err = f.config.apply(&o.Install); err != nil {
		return o, err
	}
	if f.rootSize != "" {
		if o.Install.RootSize, err = install.ParseSize(f.rootSize); err != nil {
			return o, fmt.Errorf("--root-size: %w", err)
		}
	}
	if o.Format, err = vm.ParseFormat(f.format, output); err != nil {
		return o, fmt.Errorf("--format: %w", err)
	}
	if o.Accel, err = vm.ParseAccel(f.accel); err != nil {
		return o, fmt.Errorf("--accel: %w", err)
	}
	if o.DiskSize, err = install.ParseSize(f.diskSize); err != nil {
		return o, fmt.Errorf("--disk-size: %w", err)
	}
	if o.Memory, err = install.ParseSize(f.memory); err != nil {
		return o, fmt.Errorf("--memory: %w", err)
	}
	return o, o.Validate()
}

func newBuildCommand(stdout, stderr io.Writer) *cobra.Command {
	var flags buildFlags
	cmd := &cobra.Command{
		Use:   "build [flags] IMAGE OUTPUT",
		Short: "Make a disk image in an ephemeral virtual machine, without root",
		Long: `Makes a bootable disk image of IMAGE, without root, loop devices, a daemon or a
network: to-disk runs in an ephemeral virtual machine, on the image's own kernel
and with the image's own programs, on a disk that becomes OUTPUT. IMAGE is any
source of to-disk that the user can read. The disk starts under every firmware.

Needs QEMU and qemu-img (Debian: qemu-system-x86, qemu-utils; Fedora:
qemu-system-x86-core, qemu-img), and in OUTPUT's directory, while it runs, room
for the unpacked image beside OUTPUT. The image's kernel must have EROFS, the
loop driver and virtio, built in or as modules.

OUTPUT appears when it is complete, and replaces a file of that name then. A
build that is interrupted or killed leaves nothing behind.`,
		Example: `  installer build oci:myos:latest disk.qcow2
  podman unshare installer build --karg console=ttyS0 --compress containers-storage:localhost/myos disk.qcow2`,
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeBuild,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBuild(cmd.Context(), flags, args[0], args[1], stdout, stderr)
		},
	}
	flags.addTo(cmd)
	return cmd
}

func runBuild(parent context.Context, flags buildFlags, source, path string, stdout, stderr io.Writer) error {
	o, err := flags.options(source, path)
	if err != nil {
		return &usageError{err}
	}
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	if flags.dryRun {
		return printPlan(ctx, o, stdout)
	}
	out, err := flags.output.open(stdout, stderr)
	if err != nil {
		return &usageError{err}
	}
	report, err := vm.Build(ctx, o, out.event)
	return errors.Join(explainStorage(err, o), finishBuild(out, report))
}

// explainStorage says what to do where podman's storage of an ordinary user
// cannot be read: its files belong to the users of a user namespace.
func explainStorage(err error, o vm.Options) error {
	var source *image.SourceError
	if !errors.As(err, &source) || o.Install.Source.Transport != image.TransportContainersStorage || os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("%w (images of rootless podman are read in its user namespace: podman unshare installer build …)", err)
}
