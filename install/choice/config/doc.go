// Package config reads what an image says about its own installation, in the
// formats that bootc documents: the install configuration
// (bootc-install-config(5), bootc/install/*.toml) and the kernel arguments of
// the image (bootc/kargs.d/*.toml).
//
// What belongs here: finding the files, decoding, merging, and printing the
// result as bootc does. What does not: what an installation makes of a value,
// which kernel arguments come before which (package install), and where the
// files of an image come from: they are given as file systems.
package config
