package install

import (
	"context"
	"errors"

	"installer/disk"
	"installer/install/choice"
	"installer/install/source"
	"installer/install/target/mounted"
	"installer/install/target/wholedisk"
	"installer/rootfs/bootloader"
	"installer/rootfs/image"
)

// Options are the wishes of the user for an installation to a disk. Empty fields among Filesystem,
// Stateroot, Bootloader and BlockSetup are chosen by the image's install configuration, or else by
// default.
type Options struct {
	Device       string    // block device, or raw disk file with ViaLoopback
	ViaLoopback  bool      // Device is a file
	Source       image.Ref // the image to install
	SourceOpen   image.OpenOptions
	SourceName   string          // name of the source in the disk's record; "" = its reference, which is meaningless in a virtual machine
	Survey       *Survey         // facts of the source that another program found; nil = none
	MaxLayerSize int64           // bound on a layer uncompressed, in bytes; 0 = image.DefaultMaxLayerSize
	Container    *Container      // the source is the image of this container; nil = it was named
	ConfigRoot   string          // root directory whose install configuration goes over the image's own; "" = none
	Target       string          // image reference that updates come from, see TargetOf; "" = none
	FetchCheck   bool            // make sure that Target can be fetched with the image's own credentials
	Filesystem   disk.Filesystem // of the root
	BlockSetup   string          // layer beneath the root file system: config.BlockDirect
	RootSize     int64           // bytes; 0 = all that is left
	Wipe         bool            // overwrite existing content
	Kargs        []string        // kernel arguments, after all others
	KargDeletes  []string        // kernel arguments to leave out, of those that Kargs has not
	Stateroot    string
	Bootloader   bootloader.Kind
	GenericImage bool // install the boot loader for every firmware, not for this machine's alone
	SecureBoot   bootloader.SecureBoot

	RootSSHKeys    []byte      // authorized_keys of root, see sshd(8); nil = none
	BoundImages    BoundImages // treatment of the images that the image binds; "" = BoundStored
	DisableSELinux bool        // by a kernel argument, where the image has a policy

	DryRun bool // stop at the plan: nothing is written
	// Confirm is asked before the first write, if there is something to lose. Its error ends the
	// installation. nil = go on.
	Confirm func(context.Context, *Plan) error

	WorkDir string // empty directory of this process's private mount namespace, for mount points, device nodes and the like
}

// Validate checks the options alone.
func (o Options) Validate() error {
	if err := o.choice().Validate(); err != nil {
		return err
	}
	if o.FetchCheck && o.Target == "" {
		return errors.New("there is no image that the host follows, so its fetch cannot be checked")
	}
	return nil
}

// choice returns the options that a choice is made of.
func (o Options) choice() choice.Options {
	return choice.Options{
		Filesystem: o.Filesystem, BlockSetup: o.BlockSetup, Bootloader: o.Bootloader, GenericImage: o.GenericImage,
		SecureBoot: o.SecureBoot, Stateroot: o.Stateroot, Kargs: o.Kargs, KargDeletes: o.KargDeletes, DisableSELinux: o.DisableSELinux,
		RootSSHKeys: o.RootSSHKeys, Target: o.Target, SignedOnly: o.SourceOpen.EnforceSigPolicy,
	}
}

// source returns the options that the source is read by.
func (o Options) source() source.Options {
	return source.Options{
		Ref: o.Source, Open: o.SourceOpen, MaxLayerSize: o.MaxLayerSize, Container: o.Container, Survey: o.Survey,
		Bound: o.BoundImages, InGuest: o.Survey != nil || o.SourceName != "",
	}
}

// wholeDisk returns the options of the disk.
func (o Options) wholeDisk() wholedisk.Options {
	return wholedisk.Options{Device: o.Device, ViaLoopback: o.ViaLoopback, Wipe: o.Wipe, RootSize: o.RootSize, WorkDir: o.WorkDir}
}

// MountedOptions are the wishes of the user for an installation to mounted file systems, beside
// Options. Of those, Device, ViaLoopback, Wipe, Filesystem, RootSize, BlockSetup and WorkDir have
// no meaning for it.
type MountedOptions struct {
	Root string // where the root file system is mounted, without symlinks in the path
	// RootMountSpec is the value of root=; nil leaves it to the image's install configuration, and
	// else is the file system's UUID. "" is none: the initramfs is left to find the root.
	RootMountSpec *string
	// BootMountSpec is where a separate boot file system is mounted from, with the same defaults.
	// "" leaves that to the image.
	BootMountSpec *string
	Replace       Replace
	SkipFinalize  bool // leave the file systems writable, and prove nothing of others
	// AcknowledgeDestructive allows to install beside the running system, on its own root.
	AcknowledgeDestructive bool
}

// Validate checks the options alone.
func (o MountedOptions) Validate() error {
	return choice.Options{RootMountSpec: o.RootMountSpec, BootMountSpec: o.BootMountSpec}.Validate()
}

// mounted returns the options of the file systems.
func (o MountedOptions) mounted() mounted.Options {
	return mounted.Options{Root: o.Root, Replace: o.Replace, SkipFinalize: o.SkipFinalize, AcknowledgeDestructive: o.AcknowledgeDestructive}
}
