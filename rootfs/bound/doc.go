// Package bound brings the container images that a bootable image binds logically to the target,
// for its containers to start from at the first boot.
//
// Here belong finding the bindings in an image's tree, finding the bound images, and bootc's own
// containers-storage on the target, which is kept by the library that podman uses. Elsewhere belong
// the reading of images (package image), and the steps of an installation.
//
// The vocabulary: a binding is a symbolic link in [Dir] to a quadlet (podman-systemd.unit(5)),
// whose Image= names the bound image. The format is bootc's, see its documentation of logically
// bound images.
package bound
