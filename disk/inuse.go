package disk

import (
	"fmt"
	"strings"

	"installer/disk/stack"
)

// Kind is a way to use a disk.
type Kind string

// The kinds of use.
const (
	ReadOnly        Kind = "read-only"
	Mounted         Kind = "mounted"
	BtrfsMember     Kind = "btrfs-member" // of a mounted file system of several devices
	Swap            Kind = "swap"
	LVM                  = Kind(stack.LVM)
	Crypt                = Kind(stack.Crypt)
	Multipath            = Kind(stack.Multipath)
	MappedPartition      = Kind(stack.MappedPartition)
	Stratis              = Kind(stack.Stratis)
	DeviceMapper         = Kind(stack.DeviceMapper)
	MDRAID               = Kind(stack.MDRAID)
	Bcache               = Kind(stack.Bcache)
	DRBD                 = Kind(stack.DRBD)
	Stacked              = Kind(stack.Other) // another device on top
	Loop            Kind = "loop"
	ZFS             Kind = "zfs"
	Claimed         Kind = "claimed" // exclusively, by a program or by the kernel
	Locked          Kind = "locked"
	Opened          Kind = "opened"
	Held            Kind = "held" // by a holder that a search in all processes and namespaces found
)

// Use is one reason not to write to a disk.
type Use struct {
	Kind   Kind
	What   string // the disk, the partition of it ("/dev/vda2"), or the device on top that is used
	Why    string // "mounted at /boot"
	Remedy string // the command that ends the use

	Mountpoint string // of Mounted
	Foreign    bool   // the mount is in another mount namespace than this process's
	Orphan     string // that namespace, as "mnt:[4026532001]", where no process is in it
	system     bool   // the mount is the root of this machine
	layer      bool   // a device on top has the disk claimed
}

func (u Use) String() string {
	s := u.What + ": " + u.Why
	if u.Remedy != "" {
		s += " (" + u.Remedy + ")"
	}
	return s
}

// InUseError refuses a disk that is in use or that cannot be written. Nothing was written.
type InUseError struct {
	Path string
	Uses []Use
	Err  error // the system call's error, where there was one
}

// The message of an [InUseError] names so many uses; [InUseError.Details] has all.
const (
	usesShown   = 3
	layersShown = 5 // of devices on top: each has a remedy of its own, and all must go
)

func (e *InUseError) Error() string {
	for _, u := range e.Uses {
		if u.system {
			return fmt.Sprintf("%s is in use: it is the disk that this machine runs from (%s is mounted at /); to do: give another disk", e.Path, u.What)
		}
	}
	shown, more := e.short()
	text := fmt.Sprintf("%s is in use: %s", e.Path, strings.Join(shown, "; "))
	switch {
	case more == 1:
		text += "; and 1 more use (-v lists it)"
	case more > 1:
		text += fmt.Sprintf("; and %d more uses (-v lists them)", more)
	}
	return text
}

// short returns the first uses, and how many more there are. A mount and its copies in other mount
// namespaces count as one.
func (e *InUseError) short() (shown []string, more int) {
	named := map[string]bool{}
	room := map[bool]int{false: usesShown, true: layersShown}
	for _, u := range e.Uses {
		if key := u.What + " " + u.Mountpoint; u.Kind == Mounted {
			if named[key] {
				continue
			}
			named[key] = true
		}
		if room[u.layer] == 0 {
			more++
			continue
		}
		room[u.layer]--
		shown = append(shown, u.String())
	}
	return shown, more
}

// Details lists the uses, one a line.
func (e *InUseError) Details() []string {
	lines := make([]string, len(e.Uses))
	for i, u := range e.Uses {
		lines[i] = u.String()
	}
	return lines
}

func (e *InUseError) Unwrap() error { return e.Err }

// RefusedError refuses a path that can never be an installation's disk, such as a partition.
type RefusedError struct {
	Path   string
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s cannot be installed to: %s", e.Path, e.Reason)
}
