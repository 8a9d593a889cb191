// Package bootloader makes a disk start: it puts a boot loader on the EFI system partition, into
// the BIOS boot partition and into the boot sector, in such a way that the loader finds the boot
// entries of the root file system.
//
// It has the list of files that a loader needs of the image, its configuration, its place on the
// disk, and the checks that it got there. It does not have partitions and file systems (the disk
// package), boot entries themselves (the deploy package), and how a program of the image is
// confined (the caller, through RunInTree).
package bootloader

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"installer/rootfs/bootloader/payload"
)

// Kind names a boot loader as the command line does.
type Kind string

// The boot loaders that can be installed.
const (
	// GRUB serves UEFI and BIOS; it reads the boot entries of the root file system at each start,
	// so that later deployments need no change to its configuration.
	GRUB Kind = "grub"
	// SystemdBoot serves UEFI alone; it reads the EFI system partition only, so that kernel and
	// entry are copied there.
	SystemdBoot Kind = "systemd"
	// None leaves the disk without a boot loader.
	None Kind = "none"
)

// Kinds returns all boot loaders, the default first.
func Kinds() []Kind { return []Kind{GRUB, SystemdBoot, None} }

// KernelOnESP reports whether the loader starts kernels from the EFI system partition, as EFI
// programs: the kernel's files are copied there, and the paths of boot entries have no /boot.
func (k Kind) KernelOnESP() bool { return k == SystemdBoot }

// HasInterface reports whether the loader implements the Boot Loader Interface, by which the
// initramfs finds the root without a root= argument.
func (k Kind) HasInterface() bool { return k == SystemdBoot }

// RunsImage reports whether a program of the image makes the loader, which takes a machine of the
// image's architecture.
func (k Kind) RunsImage() bool { return k == GRUB }

// StartsBIOS reports whether the loader starts machines of an architecture by their BIOS.
func (k Kind) StartsBIOS(arch string) bool { return k == GRUB && arch == "amd64" }

// ReadsBoot reports whether the loader itself reads the file system of /boot, whose features it must
// know.
func (k Kind) ReadsBoot() bool { return k == GRUB }

// CheckArguments checks that the loader carries the kernel arguments; the error is an
// [*ArgumentError].
func (k Kind) CheckArguments(args []string) error {
	if k == GRUB {
		return CheckArguments(args)
	}
	return nil
}

// ParseKind returns the boot loader called name. "grub2" and "systemd-boot" are accepted as other
// spellings.
func ParseKind(name string) (Kind, error) {
	switch name {
	case "grub", "grub2":
		return GRUB, nil
	case "systemd", "systemd-boot":
		return SystemdBoot, nil
	case "none":
		return None, nil
	}
	return "", fmt.Errorf("unknown boot loader %q: known are %s, %s and %s", name, GRUB, SystemdBoot, None)
}

// Firmware says for which kinds of firmware a loader is wanted. Both may be set: one disk can serve
// both.
type Firmware struct {
	UEFI, BIOS bool
}

// String names the firmware kinds, for messages.
func (f Firmware) String() string {
	switch {
	case f.UEFI && f.BIOS:
		return "UEFI and BIOS"
	case f.UEFI:
		return "UEFI"
	case f.BIOS:
		return "BIOS"
	}
	return "no firmware"
}

// Place is a directory tree that boot files are written to: an EFI system partition, or the
// directory boot. Paths are relative, with slashes. Where it is an fs.FS too, each file is read
// back and compared. See Directory for one that is mounted.
type Place interface {
	// MkdirAll creates the directory path and its missing parents.
	MkdirAll(path string) error
	// WriteFile creates path, or replaces it, with the size bytes that r yields.
	WriteFile(path string, size int64, r io.Reader) error
}

// Disk is the whole disk, for the boot code outside of every file system. Offsets are in bytes.
type Disk interface {
	io.ReaderAt
	io.WriterAt
}

// Range is a partition's place on the disk, in bytes.
type Range struct {
	Start, Size int64
}

// RunInTree runs a program of the image, confined, with the deployment as its root directory, and
// returns its standard output. Each of files is readable for the program as /tmp/<name>, in a
// directory of its own. The program's standard error belongs into the error. Its standard output
// has to be a regular file, for which a memfd will do: grub-mkimage syncs it before it ends, and
// fails on a pipe.
type RunInTree func(ctx context.Context, argv []string, files map[string][]byte) ([]byte, error)

// Entry is a boot entry of the Boot Loader Specification, type 1.
type Entry struct {
	Name string // file name, such as "ostree-1.conf"
	Text string
}

// Target is a disk that is to start.
type Target struct {
	Arch     string   // of the image, as Go and OCI call it, such as "amd64"
	Firmware Firmware // that the loader must serve
	Vendor   string   // ID of os-release: names the loader's directory; "" is "linux", that file's own default

	// Signed is the signed loaders that are installed for UEFI, by their paths in Tree; nil has a
	// loader made.
	Signed *payload.Payload

	Tree fs.FS     // the deployment, read only
	Run  RunInTree // needed for GRUB

	Boot  fs.FS // the directory boot of the root file system; needed for systemd-boot
	Entry Entry // the one boot entry of the new system

	Filesystem    string // with the directory boot: "ext4", "xfs" or "btrfs"; "" is not known
	BootUUID      string // of the file system with the directory boot: the root, or one of its own; as search --fs-uuid wants it
	BootPartition int    // number of its partition in the table, from 1; 0 is unknown

	ESP          Place // needed for UEFI
	ESPPartition int   // number of the EFI system partition in the table of Disk, from 1; 0 is none there
	BootDir      Place // the directory boot, to be written to; needed for the configuration of GRUB for BIOS where the partition does not have it

	Disk       Disk   // needed for BIOS
	BIOSBoot   *Range // BIOS boot partition; needed for BIOS
	SectorSize int    // logical, in bytes
}

// Install puts the boot loader kind on t and reads it back. It fails with *MissingError or
// *ModuleError where the image lacks a file of the loader, and with *ArgumentError where the loader
// cannot carry a kernel argument of the boot entry.
func Install(ctx context.Context, kind Kind, t Target) error {
	if err := (Needs{t.Arch, t.Firmware, t.Filesystem, t.SectorSize, t.Signed != nil}).Check(kind, t.Tree); err != nil {
		return err
	}
	var err error
	switch kind {
	case GRUB:
		err = installGRUB(ctx, t)
	case SystemdBoot:
		err = installSystemdBoot(t)
	}
	if err != nil {
		return fmt.Errorf("installing boot loader %s for %s: %w", kind, t.Firmware, err)
	}
	return nil
}

// vendor names the loader's directory on the EFI system partition: ID of os-release, in letters
// that a path of GRUB and a FAT file system carry.
func (t Target) vendor() string {
	const most = 64
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, t.Vendor)
	name = strings.Trim(name[:min(len(name), most)], "-._")
	if name == "" {
		return "linux" // the default of os-release(5)
	}
	return name
}
