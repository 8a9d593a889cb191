package choice

import (
	"fmt"

	"installer/disk"
	"installer/rootfs/bootloader"
)

// Place holds the facts of a target that decide how it is installed to.
type Place struct {
	Path       string          // of the target, for errors
	Made       bool            // its file systems are made already
	Filesystem disk.Filesystem // of a root that is made; "" leaves it to choose
	RootUUID   string          // that the root has, or will have
	BootPoint  string          // where a separate boot file system would be mounted, of a target that is made
	BootUUID   string          // of a separate boot file system, "" if there is none
	NoUEFI     string          // why there is no place for a boot loader for UEFI, "" if there is one
	NoBIOS     string          // the same for BIOS
}

// chooseFirmware returns the firmware that a boot loader is installed for: all that the target has
// a place for on a generic image or one of another architecture, else the kind that started this
// machine if there is a place for it.
func (p Place) chooseFirmware(kind bootloader.Kind, arch string, generic bool, m Machine) (fw bootloader.Firmware, note string, err error) {
	can := bootloader.Firmware{
		UEFI: p.NoUEFI == "",
		BIOS: p.NoBIOS == "" && kind.StartsBIOS(arch),
	}
	switch {
	case kind == bootloader.None && p.Made:
		return bootloader.Firmware{}, "", nil
	case !can.UEFI && !can.BIOS:
		return can, "", p.noFirmware(kind, arch)
	case generic, arch != m.Arch:
		return can, "", nil
	case can.UEFI && m.Firmware.UEFI || can.BIOS && m.Firmware.BIOS:
		return m.Firmware, "", nil
	case p.Made:
		note = fmt.Sprintf("this machine was started by %s, which these file systems have no place for a boot loader for: it is installed for %s alone", m.Firmware, can)
	}
	return can, note, nil
}

// noFirmware names the missing places for a boot loader.
func (p Place) noFirmware(kind bootloader.Kind, arch string) error {
	reason := "there is no place for a boot loader: " + p.NoUEFI
	if kind.StartsBIOS(arch) {
		reason += "; " + p.NoBIOS
	}
	return &disk.RefusedError{Path: p.Path, Reason: reason + fmt.Sprintf("; or leave the boot loader to yourself by --bootloader=%s", bootloader.None)}
}
