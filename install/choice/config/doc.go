// Package config reads the install configuration of an image, in the formats that bootc documents:
// bootc-install-config(5), bootc/install/*.toml, and the kernel arguments of the image,
// bootc/kargs.d/*.toml.
//
// It finds the files, decodes and merges them, and prints the result as bootc does. The order of
// kernel arguments and the effect of a value belong to package choice. The files come from file
// systems that the caller opens.
package config
