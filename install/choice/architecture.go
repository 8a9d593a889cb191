package choice

import (
	"fmt"
	"os"
	"runtime"

	"installer/rootfs/bootloader"
	"installer/rootfs/image"
)

// Machine is the machine that installs.
type Machine struct {
	Arch     string // by its Go name
	Firmware bootloader.Firmware
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine() Machine {
	_, err := os.Stat("/sys/firmware/efi")
	return Machine{Arch: runtime.GOARCH, Firmware: bootloader.Firmware{UEFI: err == nil, BIOS: err != nil}}
}

// CheckArchitecture refuses an image for another architecture that was not asked for as such, and
// one that has no boot loader here. asked is the architecture that the user named, "" is none. note
// says that no program of the image runs.
func CheckArchitecture(ref image.Ref, arch, asked string, m Machine) (note string, err error) {
	switch {
	case arch == m.Arch:
		return "", nil
	case arch != "amd64" && arch != "arm64":
		err = fmt.Errorf("it is made for architecture %q; amd64 and arm64 are supported", arch)
	case asked != arch:
		err = fmt.Errorf("it is made for architecture %q, this machine is %q; to do: give an image for this one, "+
			"or say --platform linux/%s if the disk is for such a machine", arch, m.Arch, arch)
	default:
		return fmt.Sprintf("the image is for %s, this machine is %s: no program of the image is run, the file system is made by this machine's", arch, m.Arch), nil
	}
	return "", &image.SourceError{Ref: ref.String(), Err: err}
}

// CheckRunnable refuses a boot loader that is made by a program of an image whose programs do not
// run here. With signed, the one for UEFI is copied.
func (c *Choice) CheckRunnable(signed bool, m Machine) error {
	kind, arch := c.Bootloader, c.Arch
	if arch == m.Arch || !kind.RunsImage() || signed && !c.Firmware.BIOS {
		return nil
	}
	return fmt.Errorf("boot loader %s is made by a program of the image, which is for %s and does not run on %s; "+
		"to do: --bootloader %s, which is copied, or %s; or install on such a machine",
		kind, arch, m.Arch, bootloader.SystemdBoot, bootloader.None)
}
