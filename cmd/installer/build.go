package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"installer/disk"
	"installer/install"
	"installer/install/vm"
	"installer/rootfs/image"

	"github.com/spf13/cobra"
)

// buildFlags are the flags of build as given.
type buildFlags struct {
	image    sourceFlags
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
	flag{name: "format", group: groupTarget, value: "KIND", choices: []string{string(vm.QCOW2), string(vm.Raw)}, brief: "format of OUTPUT",
		detail: "Default: raw for a name in .raw or .img, else qcow2."}.text(flags, &f.format)
	flag{name: "disk-size", group: groupTarget, value: "SIZE", initial: "10G", brief: "size of the disk",
		detail: "With the suffix M (default), G or T."}.text(flags, &f.diskSize)
	flag{name: "compress", group: groupTarget, brief: "compress the qcow2"}.toggle(flags, &f.compress)
	f.config.addDiskTo(flags)
	dryRunFlag().toggle(flags, &f.dryRun)
	f.image.addFollowedTo(flags)
	f.config.addTo(flags)
	accelFlag().text(flags, &f.accel)
	flag{name: "memory", group: groupMachine, value: "SIZE", initial: "1G", brief: "memory of the virtual machine",
		detail: "With the suffix M (default) or G."}.text(flags, &f.memory)
	f.output.addTo(flags)
}

func accelFlag() flag {
	return flag{name: "accel", group: groupMachine, value: "KIND", choices: []string{string(vm.AccelAuto), string(vm.AccelKVM), string(vm.AccelTCG)},
		initial: string(vm.AccelAuto), brief: "acceleration of the machine",
		detail: "kvm is hardware virtualisation, tcg emulation, which is slow; auto tries the first, and takes the other where that does not work."}
}

// options checks the flags and makes them the options of a build.
func (f *buildFlags) options(source, output string) (vm.Options, error) {
	o := vm.Options{Output: output, Compress: f.compress, Accel: vm.Accel(f.accel), Install: install.Options{GenericImage: true, DryRun: f.dryRun}}
	f.image.source, f.image.argument = source, "IMAGE"
	if _, err := image.ParseRef(source); err != nil {
		if _, err := image.ParseRef(output); err == nil {
			return o, fmt.Errorf("IMAGE %q is no image, and OUTPUT %q is one: give the image first", source, output)
		}
	}
	err := f.image.apply(&o.Install)
	if err != nil {
		return o, err
	}
	if err = f.config.apply(&o.Install); err != nil {
		return o, err
	}
	if o.Format, err = vm.ParseFormat(f.format, output); err != nil {
		return o, fmt.Errorf("--format: %w", err)
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
	guard, err := protectInputs(o.Install, flags.image.authFile, flags.config.sshKeys)
	if err != nil {
		return err
	}
	if err := requireTarget(filepath.Dir(path)); err != nil {
		return err
	}
	if err := guard.Check(path); err != nil {
		return &usageError{fmt.Errorf("OUTPUT: %w", err)}
	}
	if err := guard.AddFile("OUTPUT", path); err != nil {
		return err
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	out, err := flags.output.open(stdout, stderr, guard)
	if err != nil {
		return err
	}
	report, err := vm.Build(ctx, o, out.event)
	return errors.Join(adviseOnDiskSize(explainStorage(err, o)), finishBuild(out, report))
}

// adviseOnDiskSize adds the remedy for a disk that is too small.
func adviseOnDiskSize(err error) error {
	var small *disk.TooSmallError
	switch {
	case !errors.As(err, &small):
		return err
	case small.Root:
		return &advisedError{err, "choose a larger --root-size"}
	}
	return &advisedError{err, "choose a larger --disk-size"}
}

// explainStorage adds the remedy where podman's storage of an ordinary user
// cannot be read: its files belong to the users of a user namespace.
func explainStorage(err error, o vm.Options) error {
	var source *image.SourceError
	if !errors.As(err, &source) || o.Install.Source.Transport != image.TransportContainersStorage || os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("%w (images of rootless podman are read in its user namespace: podman unshare installer build …)", err)
}
