package bootloader

import (
	"errors"
	"fmt"

	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
)

// SecureBoot is the wish for loaders that start while Secure Boot is on.
type SecureBoot string

// The wishes, the default first.
const (
	// SecureBootAuto takes the image's signed loaders where it has them, and else makes one.
	SecureBootAuto SecureBoot = "auto"
	// SecureBootRequired refuses an image whose chain of signatures is not whole.
	SecureBootRequired SecureBoot = "required"
	// SecureBootOff makes a loader as if the image had no signed ones.
	SecureBootOff SecureBoot = "off"
)

// SecureBoots returns all wishes, the default first.
func SecureBoots() []SecureBoot {
	return []SecureBoot{SecureBootAuto, SecureBootRequired, SecureBootOff}
}

// Signed is the decision about the image's signed loaders.
type Signed struct {
	Payload *payload.Payload // nil where a loader is made, or none installed
	Note    string           // why the disk does not start while Secure Boot is on; "" if it does, or has no UEFI
}

// SecureBootError reports an image that does not start while Secure Boot is on.
type SecureBootError struct{ Err error }

func (e *SecureBootError) Error() string {
	return fmt.Sprintf("Secure Boot is required: %v; or use --secure-boot %s", e.Err, SecureBootAuto)
}

// Unwrap returns the reason.
func (e *SecureBootError) Unwrap() error { return e.Err }

// Reasons for which nothing of an installation is started by UEFI.
var (
	ErrNoLoader  = errors.New("no boot loader is installed: choose one by --bootloader")
	ErrBIOSAlone = errors.New("the boot loader is installed for BIOS alone, which has no Secure Boot: use --generic-image to install it for UEFI too")
)

// ChooseSigned decides which loaders for UEFI are installed. It checks the signatures of the image's
// loaders, and of the kernel at a path of the image. Where they are required, the error is a
// [*SecureBootError].
func (n Needs) ChooseSigned(kind Kind, wish SecureBoot, tree payload.Tree, kernel string, args []string) (Signed, error) {
	if wish == SecureBootOff {
		return Signed{}, nil
	}
	chosen, err := n.chooseSigned(kind, tree, kernel, args)
	switch {
	case err == nil:
		return Signed{Payload: chosen}, nil
	case wish == SecureBootRequired:
		return Signed{}, &SecureBootError{err}
	case errors.Is(err, ErrNoLoader), errors.Is(err, ErrBIOSAlone):
		return Signed{}, nil
	}
	return Signed{chosen, fmt.Sprintf("the disk does not start while Secure Boot is on: %v", err)}, nil
}

// chooseSigned returns the signed loaders, where they start each other, and the reason why the disk
// does not start while Secure Boot is on: with loaders that are whole it can be the kernel.
func (n Needs) chooseSigned(kind Kind, tree payload.Tree, kernel string, args []string) (*payload.Payload, error) {
	loader, ok := map[Kind]payload.Loader{GRUB: payload.GRUB, SystemdBoot: payload.SystemdBoot}[kind]
	switch {
	case !ok:
		return nil, ErrNoLoader
	case !n.Firmware.UEFI:
		return nil, ErrBIOSAlone
	}
	p, err := payload.Find(tree, n.Arch, loader)
	if err != nil {
		return nil, err
	}
	if kind == GRUB {
		if err := errors.Join(CheckSignedGRUB(p.GRUB, n.Arch, n.Filesystem), CheckSignedArguments(p.GRUB, args)); err != nil {
			return nil, err
		}
	}
	chain, err := p.Chain(tree, efi.Microsoft(), kernel)
	if err != nil {
		return nil, err
	}
	kernels := chain.Kernels
	chain.Kernels = nil
	if _, err := chain.Verify(); err != nil {
		return nil, err
	}
	chain.Kernels = kernels
	_, err = chain.Verify()
	return p, err
}
