// Package verify checks a finished disk against the promises of an installation, without changing a
// bit of it.
//
// It reads a disk (a raw file, a block device or a qcow2) and judges all that stands on it, from
// the partition table to the last object of each deployment, as a list of findings. It repairs and
// prints nothing, and leaves formats to the packages that know them (objects, superblocks, boot
// loaders).
//
// Nothing is opened for writing: the disk is opened O_RDONLY, its root is mounted read-only over a
// read-only loop device with the option that keeps the log from being replayed. What needs no mount
// is checked without privileges; the rest goes through [RootOpener], or all of it through [Guest],
// a virtual machine in place of this one.
//
// Where an installation leaves a second witness, the two are compared: backup and primary table,
// object and checksum, deployment and commit, boot files and boot checksum. A boot loader leaves
// none, so it is made once more from the deployment that it was made from, and compared.
package verify
