// Package efi reads the programs that UEFI firmware starts, and checks offline whether a chain of
// them starts under Secure Boot.
//
// It has the Authenticode digest and the signatures of a PE image, its SBAT metadata, the
// certificates and the revocations that shim carries, the modules and the prefix that a GRUB image
// carries, and [Chain]. It does not have where the programs come from and where they go on a disk.
package efi
