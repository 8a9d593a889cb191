package choice

import (
	"errors"
	"fmt"

	"installer/disk"
	"installer/install/choice/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
)

// Options are the wishes of the user. Empty fields among Filesystem, Stateroot, Bootloader and
// BlockSetup are chosen by the image's install configuration, or else by default.
type Options struct {
	Filesystem     disk.Filesystem // of the root
	BlockSetup     string          // layer beneath the root file system: config.BlockDirect
	Bootloader     bootloader.Kind
	GenericImage   bool                  // install the boot loader for every firmware, not for this machine's alone
	SecureBoot     bootloader.SecureBoot // "" is the default
	Stateroot      string
	Kargs          []string // kernel arguments, after all others
	KargDeletes    []string // kernel arguments to leave out, of those that Kargs has not
	DisableSELinux bool     // by a kernel argument, where the image has a policy
	RootSSHKeys    []byte   // authorized_keys of root, see sshd(8); nil = none
	Target         string   // image reference that updates come from, see TargetOf; "" = none
	SignedOnly     bool     // the image, and its updates, must pass a policy that demands a signature

	// RootMountSpec is the value of root=; nil leaves it to the image's install configuration, and
	// else is the file system's UUID. "" is none: the initramfs is left to find the root. Only for
	// a root that is made already.
	RootMountSpec *string
	// BootMountSpec is the device of a separate boot file system, with the same defaults. "" leaves
	// it to the image.
	BootMountSpec *string
}

// Defaults of options that the image's configuration leaves open, too.
const (
	DefaultFilesystem = disk.XFS
	DefaultBootloader = bootloader.GRUB
)

// errNoLUKS refuses the block setup that is not implemented.
var errNoLUKS = errors.New("block setup " + config.BlockTPM2LUKS + " is not supported yet: it needs an encrypted root (LUKS), " +
	"its key bound to this machine's TPM, and a separate /boot, none of which is made so far; " + config.BlockDirect + " is supported")

// Validate checks the options alone.
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
	if err := checkReserved(o.Kargs, o.KargDeletes); err != nil {
		return err
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
	for flag, spec := range map[string]*string{"root-mount-spec": o.RootMountSpec, "boot-mount-spec": o.BootMountSpec} {
		if err := checkSpec(spec); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return o.Bootloader.CheckArguments(o.Kargs)
}

// checkSpec refuses a value that cannot stand in a kernel argument and in a field of fstab(5).
func checkSpec(spec *string) error {
	if spec == nil || *spec == "" {
		return nil
	}
	if err := deploy.CheckKarg("root=" + *spec); err != nil {
		return err
	}
	return bootloader.CheckArguments([]string{*spec})
}
