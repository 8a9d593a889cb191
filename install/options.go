package install

import (
	"installer/disk"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// Options is what a person chooses for an installation to a disk.
type Options struct {
	Device       string    // block device, or raw disk file with ViaLoopback
	ViaLoopback  bool      // Device is a file
	Source       image.Ref // the image to install
	SourceOpen   image.OpenOptions
	Container    *Container      // the source is the image of this container; nil = it was named
	Target       string          // image reference that updates come from, see TargetOf; "" = none
	Filesystem   disk.Filesystem // of the root
	RootSize     int64           // bytes; 0 = all that is left
	Wipe         bool            // overwrite what is on the disk
	Kargs        []string        // kernel arguments, after those the installation needs itself
	Stateroot    string
	Bootloader   bootloader.Kind
	GenericImage bool   // install the boot loader for every firmware, not for this machine's alone
	WorkDir      string // empty directory of this process's private mount namespace, for mount points, device nodes and the like
}

// Validate checks what can be checked of the options alone.
func (o Options) Validate() error {
	if err := deploy.CheckStateroot(o.Stateroot); err != nil {
		return err
	}
	for _, arg := range o.Kargs {
		if err := deploy.CheckKarg(arg); err != nil {
			return err
		}
	}
	if o.Bootloader == bootloader.GRUB {
		return bootloader.CheckArguments(o.Kargs)
	}
	return nil
}
