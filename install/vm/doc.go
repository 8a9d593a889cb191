// Package vm makes a disk image in an ephemeral virtual machine, for users who have no block device
// and no root; installer build is this package with flags. The same kind of machine checks a
// finished disk for installer verify, and cannot write to that disk.
//
// # Building
//
// The host first runs the steps of to-disk that come before the first write, for the disk that the
// machine will have: whatever can be refused is refused here. It then reads the image once into a
// file system image of the merged tree (package erofs), a file without a name that disappears with
// the process. The image's own kernel, which QEMU starts directly, and the modules of the initramfs
// (package kmod) come from that tree. The only program of the initramfs is the installer (package
// guest). The guest makes the tree the root of a container and runs to-disk in it, on a disk that
// becomes the output. Events, report and exit status come out over a virtio-serial port. The host
// passes its survey of the image to the guest with the instructions, so that the guest reads each
// layer once, to write it.
//
// The layers reach the guest unchanged, on a read-only disk: QEMU composes an OCI archive from the
// blobs in their files. Layers of registries, container storage and dir are no plain files; they
// are copied first, to a file without a name beside the output.
//
// # Trust
//
// The guest runs a kernel and programs of the image, so the host treats the guest as a stranger:
// its statements are bounded and cleaned, and count only where the host cannot know better. Before
// the output appears, the host compares it with its own plan and runs the checks of package verify
// that need no mount.
//
// # Resources
//
// On the host: room for the unpacked image in the output's directory while the build runs, beside
// the output itself, and one descriptor for each layer. In the guest: the memory that the machine
// has.
//
// # Verifying
//
// The guest runs a kernel of this machine, or of an image, with the modules for disks and root file
// systems. Its root holds nothing but the installer, which makes every check and reports each one
// as it ends.
//
// The steps of an installation (package install) and printing do not belong here.
package vm
