// Package payload finds the signed boot loaders that an image carries: in the payload of bootupd,
// in the packages of Debian and its derivatives, or where ostree keeps them.
//
// It has the places in the image, the places on the EFI system partition, the versions, and why a
// source is not complete. It does not have signatures (package efi), configurations, and writing.
package payload
