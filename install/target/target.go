// Package target is the interface of the places that an image can be installed to: the phases that
// every kind of target goes through, and the results of each. Each kind has a folder of its own.
// The content of the root file system, and the order of the steps, belong elsewhere.
package target

import (
	"context"

	"installer/disk"
	"installer/finalize"
	"installer/install/choice"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
)

// Target is a place that a system is installed to. Its methods are called in the order in which
// they stand here. A target enters its resources in the journal that it was made with, which undoes
// them after a failure.
type Target interface {
	// Words names its steps.
	Words() Words
	// Look inspects the target, or refuses it. Nothing is written.
	Look(context.Context) (*Look, error)
	// Plan prepares the layout for a choice, or refuses it. Nothing is written.
	Plan(context.Context, *choice.Choice, Need) (*Plan, error)
	// Prepare returns the steps that write first, up to a root file system that is mounted and open.
	Prepare() []Step
	// Root returns the prepared root file system.
	Root() *Root
	// Release gives the target back, with the proof that nobody holds it. A report that is not nil
	// is evidence, also with an error.
	Release(ctx context.Context, handles []finalize.Handle, observe func(finalize.StageResult)) (*finalize.Report, error)
	// HandOver returns the steps that come after the release.
	HandOver() []Step
	// Proven reports whether Release proves that nobody holds the target.
	Proven() bool
	// Where names the devices that are written to, "" if none is known yet.
	Where() string
	// Left describes the state of the target after a failure, "" if nothing needs to be said.
	// released reports whether the failure was in Release or later.
	Left(released bool) string
}

// Step is one thing that an installation does, named as users and scripts see it.
type Step struct {
	Name  string
	Title string
	Do    func(context.Context) (message string, err error)
}

// Words are the names of the steps that every target has.
type Words struct {
	LookName, Look string
	Plan           string
	Release        string
}

// Look describes a target before anything is written.
type Look struct {
	Message    string
	Path       string // of the device, or the mount point
	Size       int64  // bytes
	SectorSize int    // bytes; 0 is unknown
	BlockSize  int    // bytes of a block of a root that is made; 0 is unknown
	Place      choice.Place
	Mounted    []Filesystem // the file systems that are installed to, of a target that is made
}

// Filesystem is a file system that was made by others.
type Filesystem struct {
	Role       string `json:"role"`
	MountPoint string `json:"mount_point"`
	Device     string `json:"device"`
	Type       string `json:"type"`
	UUID       string `json:"uuid,omitempty"`
}

// Need is the room that an image takes.
type Need struct {
	disk.Space       // on the root
	Boot       int64 // bytes of the kernel's files
	Overlays   bool  // layers of overlays are stored on the root
}

// Plan describes the changes to a target.
type Plan struct {
	Device     string
	Block      bool // a block device, not a file
	Model      string
	Serial     string
	Found      []disk.Found // all that will be lost
	Partitions []disk.Partition
	RootNeed   int64    // bytes that the root takes at least
	Ask        bool     // the user must confirm, if there is a way to ask
	Lost       string   // fate of Found, such as "will be deleted"
	Notes      []string // facts that the user should know
}

// NoRoomError reports a target that is too small for the image.
type NoRoomError struct{ Err error }

func (e *NoRoomError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *NoRoomError) Unwrap() error { return e.Err }

// Root is a root file system that a system is written to.
type Root struct {
	Path string       // where it is mounted
	Dir  *beneath.Dir // open until the release
	// Boot holds the fields that say where a boot loader goes; the others are empty.
	Boot bootloader.Target
}
