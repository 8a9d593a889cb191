package main

import (
	"errors"
	"fmt"
	"os"

	"installer/disk"
	"installer/install"
	"installer/install/choice/config"
	"installer/rootfs/bootloader"

	"github.com/spf13/pflag"
)

// configFlags configure the installed system. The image's own configuration counts where a flag is
// not given.
type configFlags struct {
	filesystem     string
	blockSetup     string
	rootSize       string
	stateroot      string
	bootloader     string
	secureBoot     string
	kargs          []string
	kargDeletes    []string
	sshKeys        string
	boundImages    string
	disableSELinux bool
	runFetchCheck  bool
	skipFetchCheck bool
}

// addDiskTo adds the flags of the commands that make the file systems.
func (f *configFlags) addDiskTo(flags *pflag.FlagSet) {
	flag{name: "filesystem", group: groupTarget, value: "TYPE", choices: []string{string(disk.XFS), string(disk.Ext4), string(disk.Btrfs)},
		brief: "root file system", config: "root-fs-type", fallback: string(disk.XFS)}.text(flags, &f.filesystem)
	flag{name: "root-size", group: groupTarget, value: "SIZE", brief: "size of the root partition", fallback: "all the rest",
		detail: "With the suffix M (default), G or T."}.text(flags, &f.rootSize)
}

// addBlockSetupTo adds the flag of the layer beneath the root file system.
func (f *configFlags) addBlockSetupTo(flags *pflag.FlagSet) {
	flag{name: "block-setup", group: groupTarget, value: "KIND", brief: "layer beneath the root",
		config: "block", fallback: config.BlockDirect}.text(flags, &f.blockSetup)
}

func (f *configFlags) addTo(flags *pflag.FlagSet) {
	flag{name: "bootloader", group: groupSystem, value: "KIND", choices: names(bootloader.Kinds()),
		brief: "boot loader", config: "bootloader", fallback: string(bootloader.GRUB)}.text(flags, &f.bootloader)
	flag{name: "secure-boot", group: groupSystem, value: "WISH", initial: string(bootloader.SecureBootAuto), choices: names(bootloader.SecureBoots()),
		brief: "signed loader",
		detail: "auto installs the signed boot loader of the image, where it has a whole one, and else makes one, which does not start while Secure Boot is on. " +
			"required refuses an image whose shim, boot loader and kernel do not all start then. off makes one as if the image had none."}.text(flags, &f.secureBoot)
	flag{name: "stateroot", group: groupSystem, value: "NAME", brief: "name of the stateroot",
		config: "stateroot", fallback: "default"}.text(flags, &f.stateroot)
	flag{name: "karg", group: groupSystem, value: "ARG", brief: "add a kernel argument (may be repeated)",
		detail: "It comes after all others."}.list(flags, &f.kargs)
	flag{name: "karg-delete", group: groupSystem, value: "ARG", brief: "leave out a kernel argument (repeatable)",
		detail: "KEY or KEY=VALUE; it does not touch the arguments of --karg."}.list(flags, &f.kargDeletes)
	flag{name: "root-ssh-authorized-keys", group: groupSystem, value: "FILE", brief: "SSH keys that may log in as root"}.text(flags, &f.sshKeys)
	flag{name: "disable-selinux", group: groupSystem, brief: "start the installed system without SELinux"}.toggle(flags, &f.disableSELinux)
	flag{name: "bound-images", group: groupImage, value: "KIND", initial: string(install.BoundStored),
		choices: []string{string(install.BoundStored), string(install.BoundPull), string(install.BoundSkip)}, brief: "bound images",
		detail: "Container images that the image binds (bootc's bound-images.d): stored copies them from podman's storage on this machine, " +
			"pull fetches them from their registries, skip leaves them for the host to fetch."}.text(flags, &f.boundImages)
	flag{name: "run-fetch-check", group: groupImage, brief: "check that updates can be fetched",
		detail: "With the credentials in the image, not with this machine's."}.toggle(flags, &f.runFetchCheck)
	flag{name: "skip-fetch-check", group: groupImage, brief: "do not check the fetch of updates"}.toggle(flags, &f.skipFetchCheck)
}

// apply checks the flags and sets the options.
func (f *configFlags) apply(o *install.Options) (err error) {
	o.Kargs, o.KargDeletes, o.Stateroot, o.BlockSetup = f.kargs, f.kargDeletes, f.stateroot, f.blockSetup
	o.DisableSELinux, o.FetchCheck = f.disableSELinux, f.runFetchCheck
	o.Filesystem, o.Bootloader, o.BoundImages = disk.Filesystem(f.filesystem), bootloader.Kind(f.bootloader), install.BoundImages(f.boundImages)
	o.SecureBoot = bootloader.SecureBoot(f.secureBoot)
	if f.runFetchCheck && f.skipFetchCheck {
		return errors.New("--run-fetch-check and --skip-fetch-check exclude each other")
	}
	if f.rootSize != "" {
		if o.RootSize, err = install.ParseSize(f.rootSize); err != nil {
			return fmt.Errorf("--root-size: %w", err)
		}
	}
	if f.sshKeys != "" {
		if o.RootSSHKeys, err = os.ReadFile(f.sshKeys); err != nil {
			return fmt.Errorf("--root-ssh-authorized-keys: %w", err)
		}
	}
	o.ConfigRoot = configRoot()
	return nil
}

// configRoot returns the root directory whose install configuration counts beside
// the image's: that of the container this runs in; "" outside of one.
func configRoot() string {
	if _, err := os.Stat("/run/.containerenv"); err != nil {
		return ""
	}
	return "/"
}

// names returns the values of a choice as text.
func names[T ~string](values []T) []string {
	var all []string
	for _, v := range values {
		all = append(all, string(v))
	}
	return all
}
