// Package fsinfo reads the superblocks of the file systems that an installation has: xfs, ext4,
// btrfs and FAT. It identifies a file system, checks its superblock and the copies of it, and finds
// out whether the next mount would replay a log and whether the kernel has recorded errors.
//
// Everything is read from an [io.ReaderAt]: nothing is mounted, and nothing is written. Out of
// scope: file systems that are not to be installed on (package disk knows the signatures of many),
// and files and directories inside a file system.
package fsinfo
