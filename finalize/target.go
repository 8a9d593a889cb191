package finalize

import (
	"io"
	"os"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// Handle is an open file or mapping on the target that drop-handles closes.
type Handle struct {
	Name string
	io.Closer
}

// Detacher is a device beneath the file system that detach gives back, such as a loop device.
type Detacher interface {
	Name() string
	Detach() error
}

// Device is a block device that carries a file system of the target.
type Device struct {
	Path   string // for people
	Node   string // a node that can be opened exclusively; empty if Path is one
	Major  uint32 // of the block device, also for btrfs
	Minor  uint32
	FSType string   // "xfs", "ext4", "btrfs", "vfat"
	File   *os.File // open for reading, not exclusively; it stays the caller's
}

func (d Device) number() mounts.DevNum { return mounts.DevNum{Major: d.Major, Minor: d.Minor} }

func (d Device) block() holders.Block {
	path := d.Path
	if d.Node != "" {
		path = d.Node
	}
	return holders.Block{Path: path, Number: d.number()}
}

// Target is a mounted tree that is to be released.
type Target struct {
	// Mountpoint is the place of the tree in this process's mount namespace. Mounts below it are
	// released with it.
	Mountpoint string
	// Handles are closed in this order, the repository's first.
	Handles []Handle
	// Ledger must be empty when the handles are closed; it may be nil.
	Ledger *Ledger
	// Devices carry the file systems of the target: all devices of each one that is stored on some.
	// A release that has one too few refuses to begin.
	Devices []Device
	// Detach is given back last, in this order.
	Detach []Detacher
	// Copies is the way to treat mounts of the target's superblocks outside of the tree.
	Copies Copies

	missing map[mounts.DevNum]error // why Discover could not open the devices of a superblock
}

// Copies is a way to treat copies of the target: mounts of its superblocks that stand outside of the
// tree, and that the unmount does not reach by propagation.
type Copies int

// The ways to treat copies.
const (
	CopiesHold    Copies = iota // they are holders
	UnmountCopies               // those in other mount namespaces are unmounted too; others are holders
	CopiesStay                  // they are of no concern: the target stays mounted itself
)
