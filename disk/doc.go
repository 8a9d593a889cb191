// Package disk handles the device that an installation is written to. It claims a whole disk (a
// block device or a raw file), refuses one that is in use or not empty, writes the partition table,
// attaches a loop device to each partition that needs a node, makes file systems, and announces the
// new partitions to the kernel.
//
// One mechanism serves block devices and raw files. The whole disk is opened once, exclusively, and
// stays open and locked for the run; each partition is reached through a loop device laid over that
// open file, or, for FAT, by writing into its range directly. So nothing here waits for udev, needs
// a kernel that parses partition tables, or stays behind when the program is killed: the kernel
// clears a loop device when its last descriptor is closed.
//
// Out of scope: the content of file systems, running programs (a [Runner] is handed in), and the
// decision whether a disk that is not empty may be overwritten. Package block reads the kernel's
// accounts of devices and their users, package mounts lists and makes mounts, package fsinfo reads
// superblocks, package fat FAT.
package disk
