package bootloader

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// platform holds the values that differ between processor architectures.
type platform struct {
	efiImage  string // name of the removable-media loader, UEFI specification 2.10 section 3.5.1.1
	peMachine uint16 // machine type of an image for it, Microsoft PE format
	grubEFI   string // GRUB's name of its UEFI platform
	grubBIOS  string // GRUB's name of its BIOS platform, "" where there is none
	systemd   string // file name of systemd-boot

	grubPackages []string // with GRUB's files for UEFI, Debian's name first
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
	Path     string   // of the missing file, relative to the image's root
	Packages []string // that have it, Debian's name first
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

// Needs describe a disk that is to start, as far as it decides which files the image must have.
type Needs struct {
	Arch       string // of the image, as Go and OCI call it, such as "amd64"
	Firmware   Firmware
	Filesystem string // with the directory boot: "ext4", "xfs" or "btrfs"; "" is not known
	SectorSize int    // of the disk, logical, in bytes; 0 is not known
	Signed     bool   // the loader for UEFI is the image's signed one, see ChooseSigned
}

// Check reports why the loader cannot be installed: the tree of the image lacks a file of it
// ([*MissingError], [*ModuleError]), or the disk is none that the loader starts. Of contents it
// reads CheckedFiles alone.
func (n Needs) Check(kind Kind, tree fs.FS) error {
	if kind == None {
		return nil
	}
	p, err := platformOf(n.Arch)
	if err != nil {
		return err
	}
	if !n.Firmware.UEFI && !n.Firmware.BIOS {
		return fmt.Errorf("boot loader %s: no firmware to serve was named", kind)
	}
	switch {
	case kind == GRUB && n.Signed:
		n.Firmware.UEFI = false
		return checkGRUB(tree, n, p)
	case kind == GRUB:
		return checkGRUB(tree, n, p)
	case kind == SystemdBoot && n.Signed && !n.Firmware.BIOS:
		return nil
	case kind == SystemdBoot:
		return checkSystemdBoot(tree, n.Firmware, p)
	}
	return fmt.Errorf("unknown boot loader %q", kind)
}

// require returns the first candidate that is a regular file of the tree, or the error missing.
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

// readFile reads a file of at most limit bytes.
func readFile(tree fs.FS, name string, limit int64) ([]byte, error) {
	file, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("reading /%s: %w", name, err)
	}
	return data, nil
}
