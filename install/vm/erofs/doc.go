// Package erofs writes the merged tree of an image as an EROFS file system
// image, so that a virtual machine can have it as its root without anything
// being mounted or unpacked here.
//
// The format is that of the Linux kernel's Documentation/filesystems/erofs.rst
// and fs/erofs/erofs_fs.h, in its oldest form (Linux 5.4): 4 KiB blocks,
// extended inodes, no compression. Contents are written as they stream by,
// from many goroutines; inodes and directories follow them when the tree is known.
//
// The purpose of the file system, and reading one, do not belong here.
package erofs
