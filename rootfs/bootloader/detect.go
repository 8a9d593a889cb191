package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
)

// platform is what differs between processor architectures.
type platform struct {
	efiImage  string // name of the removable-media loader, UEFI specification 2.10 section 3.5.1.1
	peMachine uint16 // machine type of an image for it, Microsoft PE format
	grubEFI   string // GRUB's name of its UEFI platform
	grubBIOS  string // GRUB's name of its BIOS platform, "" where there is none
	systemd   string // file name of systemd-boot

	grubPackages []string // what brings GRUB's files for UEFI, Debian's name first
}

// platformOf knows the architectures that there are loaders for.
func platformOf(arch string) (platform, error) {
	switch arch {
	case "arm64":
		return platform{
			efiImage:  "BOOTAA64.EFI",
			peMachine: 0xaa64,
			grubEFI:   "arm64-efi",
			systemd:   "systemd-bootaa64.efi",

			grubPackages: []string{"grub-efi-arm64-bin", "grub2-efi-aa64-modules"},
		}, nil
	case "amd64":
		return platform{
			efiImage:  "BOOTX64.EFI",
			peMachine: 0x8664,
			grubEFI:   "x86_64-efi",
			grubBIOS:  "i386-pc",
			systemd:   "systemd-bootx64.efi",

			grubPackages: []string{"grub-efi-amd64-bin", "grub2-efi-x64-modules"},
		}, nil
	}
	return platform{}, fmt.Errorf("no boot loader is known for architecture %q: use --bootloader %s", arch, None)
}

// MissingError reports that the image lacks a file which a boot loader is made of.
type MissingError struct {
	Loader   Kind
	Firmware string   // "UEFI" or "BIOS"
	Path     string   // what was looked for, relative to the image's root
	Packages []string // what brings it, Debian's name first
}

func (e *MissingError) Error() string {
	msg := fmt.Sprintf("boot loader %s for %s: the image has no /%s", e.Loader, e.Firmware, e.Path)
	for i, p := range e.Packages {
		if i == 0 {
			msg += ": add package " + p
			continue
		}
		msg += " or " + p
	}
	return msg
}

// Support tells for one boot loader whether a tree has what it is made of. A nil error means that it has; else the
// error is a *MissingError, or says why the loader cannot serve that firmware at all.
type Support struct {
	Loader     Kind
	UEFI, BIOS error
}

// Detect tells which boot loaders the tree of an image supports, the preferred one first.
func Detect(tree fs.FS, arch string) []Support {
	kinds := []Kind{GRUB, SystemdBoot}
	all := make([]Support, 0, len(kinds))
	for _, k := range kinds {
		all = append(all, Support{
			Loader: k,
			UEFI:   Check(k, Firmware{UEFI: true}, arch, tree),
			BIOS:   Check(k, Firmware{BIOS: true}, arch, tree),
		})
	}
	return all
}

// Default returns the preferred boot loader that the tree supports for the wanted firmware, or why none is.
func Default(tree fs.FS, fw Firmware, arch string) (Kind, error) {
	var reasons []error
	for _, k := range []Kind{GRUB, SystemdBoot} {
		err := Check(k, fw, arch, tree)
		if err == nil {
			return k, nil
		}
		reasons = append(reasons, err)
	}
	return "", fmt.Errorf("no boot loader in the image serves %s: %w", fw, errors.Join(reasons...))
}

// Check tells whether the tree has what the loader needs for the firmware; it reads no more than names.
func Check(kind Kind, fw Firmware, arch string, tree fs.FS) error {
	if kind == None {
		return nil
	}
	p, err := platformOf(arch)
	if err != nil {
		return err
	}
	if !fw.UEFI && !fw.BIOS {
		return fmt.Errorf("boot loader %s: no firmware to serve was named", kind)
	}
	switch kind {
	case GRUB:
		return checkGRUB(tree, fw, p)
	case SystemdBoot:
		return checkSystemdBoot(tree, fw, p)
	}
	return fmt.Errorf("unknown boot loader %q", kind)
}

// require fails with missing if no candidate is a regular file of the tree; it returns the first that is.
func require(tree fs.FS, missing MissingError, candidates ...string) (string, error) {
	for _, name := range candidates {
		info, err := fs.Stat(tree, name)
		if err == nil && info.Mode().IsRegular() {
			return name, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for /%s in the image: %w", name, err)
		}
	}
	missing.Path = candidates[0]
	return "", &missing
}
