package install

import (
	"context"
	"errors"
	"fmt"

	"installer/disk"
	"installer/install/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// Options is what a person chooses for an installation to a disk. What is left
// empty of Filesystem, Stateroot, Bootloader and BlockSetup is chosen by the
// image's install configuration, or else by default.
type Options struct {
	Device       string    // block device, or raw disk file with ViaLoopback
	ViaLoopback  bool      // Device is a file
	Source       image.Ref // the image to install
	SourceOpen   image.OpenOptions
	SourceName   string          // what the disk's record calls the source; "" = by its reference, which of a virtual machine says nothing
	Survey       *Survey         // what is known of the source already; nil = nothing
	MaxLayerSize int64           // bound on a layer uncompressed, in bytes; 0 = image.DefaultMaxLayerSize
	Container    *Container      // the source is the image of this container; nil = it was named
	ConfigRoot   string          // root directory whose install configuration goes over the image's own; "" = none
	Target       string          // image reference that updates come from, see TargetOf; "" = none
	FetchCheck   bool            // make sure that Target can be fetched with what the image knows
	Filesystem   disk.Filesystem // of the root
	BlockSetup   string          // what the root file system stands on: config.BlockDirect
	RootSize     int64           // bytes; 0 = all that is left
	Wipe         bool            // overwrite what is on the disk
	Kargs        []string        // kernel arguments, after all others
	KargDeletes  []string        // kernel arguments to leave out, of those that Kargs has not
	Stateroot    string
	Bootloader   bootloader.Kind
	GenericImage bool // install the boot loader for every firmware, not for this machine's alone

	RootSSHKeys    []byte      // authorized_keys of root, see sshd(8); nil = none
	BoundImages    BoundImages // what becomes of the images that the image binds; "" = BoundStored
	DisableSELinux bool        // by a kernel argument, where the image has a policy

	DryRun bool // stop at the plan: nothing is written
	// Confirm is asked before the first write, if there is something to lose. Its
	// error ends the installation. nil = go on.
	Confirm func(context.Context, *Plan) error

	WorkDir string // empty directory of this process's private mount namespace, for mount points, device nodes and the like
}

// Values of what neither the options nor the image's configuration choose.
const (
	DefaultFilesystem = disk.XFS
	DefaultBootloader = bootloader.GRUB
)

// errNoLUKS says what is missing for the other block setup.
var errNoLUKS = errors.New("block setup " + config.BlockTPM2LUKS + " is not supported yet: it needs an encrypted root (LUKS), " +
	"its key bound to this machine's TPM, and a separate /boot, none of which is made so far; " + config.BlockDirect + " is supported")

// Validate checks what can be checked of the options alone.
func (o Options) Validate() error {
	if o.Stateroot != "" {
		if err := deploy.CheckStateroot(o.Stateroot); err != nil {
			return err
		}
	}
	if err := checkKargs(o.Kargs); err != nil {
		return err
	}
	if err := checkKargs(o.KargDeletes); err != nil {
		return fmt.Errorf("to delete: %w", err)
	}
	switch o.BlockSetup {
	case "", config.BlockDirect:
	case config.BlockTPM2LUKS:
		return errNoLUKS
	default:
		return fmt.Errorf("unknown block setup %q: %s is supported", o.BlockSetup, config.BlockDirect)
	}
	if o.RootSSHKeys != nil {
		if err := checkSSHKeys(o.RootSSHKeys); err != nil {
			return err
		}
	}
	if o.FetchCheck && o.Target == "" {
		return errors.New("there is no image that the host follows, so its fetch cannot be checked")
	}
	if o.Bootloader == bootloader.GRUB {
		return bootloader.CheckArguments(o.Kargs)
	}
	return nil
}
