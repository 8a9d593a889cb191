package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"installer/install"
	"installer/install/outfile"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// toFilesystemFlags are the flags of to-filesystem as given.
type toFilesystemFlags struct {
	installFlags
	rootSpec     string
	bootSpec     string
	replace      string
	skipFinalize bool
	acknowledge  bool
}

func (f *toFilesystemFlags) addTo(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flag{name: "replace", group: groupTarget, value: "HOW", choices: []string{string(install.ReplaceWipe), string(install.ReplaceAlongside)},
		brief:  "treatment of existing content",
		detail: "wipe deletes all of it, alongside only that of /boot and of the EFI system partition. Without it a file system that is not empty is refused."}.text(flags, &f.replace)
	flag{name: "root-mount-spec", group: groupTarget, value: "SPEC", brief: "value of root=", config: "root-mount-spec", fallback: "UUID=…",
		detail: "Such as LABEL=root; empty: no root=."}.text(flags, &f.rootSpec)
	flag{name: "boot-mount-spec", group: groupTarget, value: "SPEC", brief: "source of a separate /boot", config: "boot-mount-spec", fallback: "UUID=…",
		detail: "The device that the system mounts /boot from; empty: left to the image."}.text(flags, &f.bootSpec)
	flag{name: "skip-finalize", group: groupTarget, brief: "leave the file systems writable, unproven",
		detail: "The file systems are neither made read-only nor searched for holders."}.toggle(flags, &f.skipFinalize)
	flag{name: "acknowledge-destructive", group: groupTarget, brief: "allow the running system's root",
		detail: "For --replace=alongside."}.toggle(flags, &f.acknowledge)
	f.installFlags.addTo(flags)
}

// options checks the flags and returns the options of the installation.
func (f *toFilesystemFlags) options(root string, given *pflag.FlagSet) (install.Options, install.MountedOptions, error) {
	o := install.Options{}
	m := install.MountedOptions{SkipFinalize: f.skipFinalize, AcknowledgeDestructive: f.acknowledge, Replace: install.Replace(f.replace)}
	if err := f.installFlags.apply(&o); err != nil {
		return o, m, err
	}
	// An empty one is not the same as none.
	if given.Changed("root-mount-spec") {
		m.RootMountSpec = &f.rootSpec
	}
	if given.Changed("boot-mount-spec") {
		m.BootMountSpec = &f.bootSpec
	}
	m.Root = root
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
			return runToFilesystem(cmd, flags, args[0], streams{stdout, stderr})
		},
	}
	flags.addTo(cmd.Flags())
	return cmd
}

func runToFilesystem(cmd *cobra.Command, flags toFilesystemFlags, root string, s streams) error {
	o, m, err := flags.options(root, cmd.Flags())
	if err != nil {
		return &usageError{err}
	}
	return flags.perform(cmd.Context(), s, o, job{
		protect: func(g *outfile.Guard) error {
			if m.Root, err = resolveRoot(m.Root); err != nil {
				return err
			}
			return protectMounted(g, m.Root)
		},
		enter: func() error {
			if os.Geteuid() != 0 {
				return &notRootError{"the files of a system belong to root and others"}
			}
			return settle()
		},
		run: func(ctx context.Context, o install.Options, observe install.Observer) (*install.Report, error) {
			return install.ToFilesystem(ctx, o, m, observe)
		},
	})
}

// protectMounted keeps outputs off the file systems of a target.
func protectMounted(g *outfile.Guard, root string) error {
	for _, dir := range []string{"", "boot", "boot/efi", "efi"} {
		if err := g.AddFilesystem("the target's file system", filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return nil
}

// resolveRoot returns the path by which the kernel knows a mount: absolute, and without symlinks.
func resolveRoot(root string) (string, error) {
	if err := requireTarget(root); err != nil {
		return "", err
	}
	path, err := filepath.Abs(root)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", &noTargetError{err}
	}
	return path, nil
}
