package main

import (
	"fmt"
	"os"

	"installer/disk"
	"installer/install"
	"installer/rootfs/bootloader"

	"github.com/spf13/pflag"
)

// configFlags say how the installed system is set up. What a flag leaves open
// is the image's own configuration's to say.
type configFlags struct {
	filesystem     string
	stateroot      string
	bootloader     string
	kargs          []string
	kargDeletes    []string
	sshKeys        string
	boundImages    string
	disableSELinux bool
	runFetchCheck  bool
	skipFetchCheck bool
}

// addFilesystemTo adds the flag of the commands that make the file systems.
func (f *configFlags) addFilesystemTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.filesystem, "filesystem", "", "root: xfs (default), ext4 or btrfs\n"+
		"Root file system. Default: what the image's configuration says, or else xfs.")
}

func (f *configFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.bootloader, "bootloader", "", "grub (default), systemd or none\n"+
		"Boot loader. Default: what the image's configuration says, or else grub.")
	flags.StringVar(&f.stateroot, "stateroot", "", "name of the stateroot (default: \"default\")\n"+
		"Default: what the image's configuration says, or else \"default\".")
	flags.StringArrayVar(&f.kargs, "karg", nil, "add a kernel argument (may be repeated)\n"+
		"It comes after all others.")
	flags.StringArrayVar(&f.kargDeletes, "karg-delete", nil, "leave one out (may be repeated)\n"+
		"KEY or KEY=VALUE; it does not touch what --karg adds.")
	flags.StringVar(&f.sshKeys, "root-ssh-authorized-keys", "", "SSH keys that may log in as root")
	flags.BoolVar(&f.disableSELinux, "disable-selinux", false, "start the installed system without SELinux")
	flags.StringVar(&f.boundImages, "bound-images", string(install.BoundStored), "images that it binds: stored, pull or skip\n"+
		"Container images that the image binds (bootc's bound-images.d): stored (default) copies them from podman's storage on this machine, "+
		"pull fetches them from their registries, skip leaves them for the host to fetch.")
	flags.BoolVar(&f.runFetchCheck, "run-fetch-check", false, "check that the host can fetch its updates\n"+
		"With the credentials in the image, not with this machine's.")
	flags.BoolVar(&f.skipFetchCheck, "skip-fetch-check", false, "do not check that (default)")
}

// apply checks the flags and fills in what they say.
func (f *configFlags) apply(o *install.Options) (err error) {
	o.Kargs, o.KargDeletes, o.Stateroot = f.kargs, f.kargDeletes, f.stateroot
	o.DisableSELinux, o.FetchCheck = f.disableSELinux, f.runFetchCheck
	if f.runFetchCheck && f.skipFetchCheck {
		return fmt.Errorf("--run-fetch-check and --skip-fetch-check exclude each other")
	}
	if f.filesystem != "" {
		if o.Filesystem, err = disk.ParseFilesystem(f.filesystem); err != nil {
			return fmt.Errorf("--filesystem: %w", err)
		}
	}
	if f.bootloader != "" {
		if o.Bootloader, err = bootloader.ParseKind(f.bootloader); err != nil {
			return fmt.Errorf("--bootloader: %w", err)
		}
	}
	if o.BoundImages, err = install.ParseBoundImages(f.boundImages); err != nil {
		return fmt.Errorf("--bound-images: %w", err)
	}
	if f.sshKeys != "" {
		if o.RootSSHKeys, err = os.ReadFile(f.sshKeys); err != nil {
			return fmt.Errorf("--root-ssh-authorized-keys: %w", err)
		}
	}
	o.ConfigRoot = configRoot()
	return nil
}

// configRoot is the root directory whose install configuration counts beside
// the image's: that of the container this runs in, if it does.
func configRoot() string {
	if _, err := os.Stat("/run/.containerenv"); err != nil {
		return ""
	}
	return "/"
}
