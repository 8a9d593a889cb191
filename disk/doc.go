// Package disk is the device an installation is written to: claiming a whole disk (a block device or
// a raw file), refusing one that is in use, the partition table, a loop device for each partition that
// needs a node, file systems on them, and telling the kernel of the new partitions.
//
// One mechanism serves block devices and raw files. The whole disk is opened once, exclusively, and
// stays open and locked for the run; each partition is reached through a loop device laid over that
// open file, or, for FAT, by writing into its range directly. So nothing here waits for udev, needs a
// kernel that parses partition tables, or leaves anything behind when the program is killed: the loop
// devices clear themselves when their last descriptor goes.
//
// What does not belong here: mounting, what stands inside a file system, running programs (a [Runner]
// is handed in), and deciding whether a disk that is not empty may be overwritten.
package disk
