package install

import (
	"installer/install/choice"
	"installer/install/size"
	"installer/install/source"
	"installer/install/target"
	"installer/install/target/mounted"
	"installer/rootfs/image"
)

// Types and values of the rooms that callers of this package use.
type (
	Container         = source.Container
	Survey            = source.Survey
	BoundImages       = source.BoundImages
	BoundImage        = source.BoundImage
	MountedFilesystem = target.Filesystem
	Replace           = mounted.Replace
)

// See the packages that they come from.
const (
	BoundStored      = source.BoundStored
	BoundPull        = source.BoundPull
	BoundSkip        = source.BoundSkip
	ReplaceNone      = mounted.ReplaceNone
	ReplaceWipe      = mounted.ReplaceWipe
	ReplaceAlongside = mounted.ReplaceAlongside
)

// ErrNoContainer is source.ErrNoContainer.
var ErrNoContainer = source.ErrNoContainer

// FindContainer is source.FindContainer.
func FindContainer() (*Container, error) { return source.FindContainer() }

// TargetOf is choice.TargetOf.
func TargetOf(src image.Ref, name, transport string) (string, error) {
	return choice.TargetOf(src, name, transport)
}

// ParseSize is size.Parse.
func ParseSize(s string) (int64, error) { return size.Parse(s) }

// FormatBytes is size.Format.
func FormatBytes(n int64) string { return size.Format(n) }
