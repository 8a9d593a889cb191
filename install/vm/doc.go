// Package vm makes a disk image in an ephemeral virtual machine, for people who
// have no block device and no root: it is what stands behind installer build.
// The same kind of machine looks at a finished disk for installer verify, which
// it cannot write to.
//
// # The way of a build
//
// The image is read once on the host, into a file system image of its merged
// tree (package erofs), a file without a name that is gone with the process.
// From it come the image's own kernel, which QEMU starts directly, and the
// modules (package kmod) for an initramfs whose only program is the installer
// itself (package guest). The guest makes the tree the root of a container and
// runs to-disk in it, on a disk that is the output in the making. Its events,
// its report and its exit status come out over a virtio-serial port. What the
// host learned by reading the image goes into the guest with the instructions,
// so that no layer is read there but to be written.
//
// The layers reach the guest as they are, on a read-only disk: QEMU composes an
// OCI archive from the blobs where they lie. Only for sources whose layers are no
// plain files (registries, container storage, dir) are they copied first, to a
// file without a name beside the output.
//
// # Resources
//
// On the host: the size of the unpacked image in the output's directory while
// the build runs, beside the output itself, and as many descriptors as the
// image has layers. In the guest: the memory it is given and no more.
//
// # The way of a verification
//
// The guest is started on a kernel of this machine, or of an image, with the
// modules that a disk and the root file systems need. Its root is empty but for
// the installer, which makes every check and tells of each as it ends.
//
// What does not belong here: what an installation does (package install), and
// printing.
package vm
