package install

import "installer/rootfs/bootloader"

// target is where the system goes, whatever it stands on.
type target struct {
	root     string // directory where the new root is mounted
	rootUUID string
	rootSpec string // value of root=, see kernel-command-line(7); "" leaves the root to be found by its partition type
	bootSpec string // where a separate /boot is mounted from, as in fstab(5); "" is none
	kargs    []string
	firmware bootloader.Firmware // that a boot loader is installed for
	site     bootSite
}

// bootSite is where a boot loader goes.
type bootSite struct {
	esp       bootloader.ESP // nil is none
	espNumber int            // of its partition; 0 is unknown, or on another disk than the boot entries

	entriesUUID   string // of the file system with the directory boot
	entriesNumber int    // of its partition; 0 is unknown

	bootDir bootloader.ESP // the directory boot; nil where the boot loader has no need of it

	disk       bootloader.Disk // nil where the disk beneath is unknown
	sectorSize int             // bytes
	bios       *bootloader.Range
}
