package finalize

import (
	"io"
	"os"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// Handle is something open on the target that drop-handles closes.
type Handle struct {
	Name string
	io.Closer
}

// Detacher is something beneath the file system that detach gives back, such as
// a loop device.
type Detacher interface {
	Name() string
	Detach() error
}

// Device is a block device that carries a file system of the target.
type Device struct {
	Path   string // a node that can be opened exclusively
	Major  uint32 // of the block device, also for btrfs
	Minor  uint32
	FSType string   // "xfs", "ext4", "btrfs", "vfat"
	File   *os.File // open for reading, not exclusively; it stays the caller's
}

func (d Device) number() mounts.DevNum { return mounts.DevNum{Major: d.Major, Minor: d.Minor} }

func (d Device) block() holders.Block {
	return holders.Block{Path: d.Path, Number: d.number()}
}

// Target is what is to be released.
type Target struct {
	// Mountpoint is where the tree stands in this process's mount namespace. What
	// is mounted below it is released with it.
	Mountpoint string
	// Handles are closed in this order, the repository's first.
	Handles []Handle
	// Ledger must be empty when the handles are closed; nil when there is none.
	Ledger *Ledger
	// Devices carry the file systems of the tree: one for each that is stored on a
	// device. A release that has one too few refuses to begin.
	Devices []Device
	// Detach is given back last, in this order.
	Detach []Detacher
	// AllNamespaces says that the devices are to be unmounted also in the mount
	// namespaces that the unmount does not reach by propagation. Without it, mounts
	// there are holders.
	AllNamespaces bool
}
