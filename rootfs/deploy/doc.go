// Package deploy turns an imported image into a bootable deployment: commits in the repository, a
// stateroot, a deployment with its /etc and /var, its origin, its kernel in /boot and a boot entry,
// in the layout that libostree and bootc read (OSTree sysroot, epoch 1; container image references
// as ostree-ext keeps them).
//
// Here belong the files beneath the physical root besides the repository's own files, and the
// meaning of refs and commit metadata. Elsewhere belong the format of objects (package ostree), the
// reading of images (package image), partitions, mounting, and boot loaders.
//
// The vocabulary: the physical root is the root of the file system that holds everything, of which
// the running system sees /sysroot. A stateroot is a name with a /var that its deployments share. A
// deployment is a hard-linked checkout of a commit with an /etc of its own. A boot entry (Boot
// Loader Specification, type 1) starts one deployment.
//
// Everything is done relative to the descriptor of the physical root, and nothing beneath it that
// an image brought, such as a symbolic link, leads out of it.
package deploy

import (
	"errors"

	"installer/rootfs/beneath"
)

// Ledger accounts for open handles on the target.
type Ledger = beneath.Ledger

// ErrNoKernel is returned for an image that carries no kernel at usr/lib/modules/VERSION/vmlinuz.
var ErrNoKernel = errors.New("the image carries no kernel (usr/lib/modules/VERSION/vmlinuz): it is no bootable image")

// ErrDeployed is returned for a physical root that has a bootable deployment already.
var ErrDeployed = errors.New("the target has a bootable deployment already")

// ErrLocked is returned while another process changes the deployments.
var ErrLocked = errors.New("another process is changing the deployments of the target")
