package install

import (
	"errors"

	"installer/disk"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// Options is what a person chooses for an installation to a disk.
type Options struct {
	Device       string          // block device, or raw disk file with ViaLoopback
	ViaLoopback  bool            // Device is a file
	Source       image.Ref       // the image to install
	Target       string          // image reference that updates come from, with its transport; "" = Source
	Filesystem   disk.Filesystem // of the root
	RootSize     int64           // bytes; 0 = all that is left
	Wipe         bool            // overwrite what is on the disk
	Kargs        []string        // kernel arguments, after those the installation needs itself
	Stateroot    string
	Bootloader   bootloader.Kind
	GenericImage bool   // install the boot loader for every firmware, not for this machine's alone
	WorkDir      string // empty directory of this process's private mount namespace, for mount points, device nodes and the like
}

// targetRef is the image reference that the host follows; empty for a system
// that came from a directory and follows nothing.
func (o Options) targetRef() string {
	if o.Target == "" && o.Source.Transport != image.TransportRootfs {
		return o.Source.String()
	}
	return o.Target
}

// ParseTarget reads the reference that a host follows: TRANSPORT:NAME as for
// a source, or the bare name of an image in a registry. It returns the former.
func ParseTarget(s string) (string, error) {
	ref, err := image.ParseRef(s)
	var unknown *image.UnknownTransportError
	if errors.As(err, &unknown) {
		// "quay.io/x/y:latest" and "localhost:5000/x" have a colon too.
		ref, err = image.ParseRef(image.TransportDocker + "://" + s)
	}
	if err != nil {
		return "", err
	}
	return ref.String(), nil
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
