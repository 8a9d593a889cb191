package disk

import (
	"io"

	"installer/disk/fsinfo"
)

// Superblock identifies a root file system.
type Superblock struct {
	Filesystem Filesystem
	UUID       string
	unreadable uint64
}

// Unreadable is [fsinfo.Superblock.Unreadable].
func (s Superblock) Unreadable() uint64 { return s.unreadable }

// ReadSuperblock is [fsinfo.ReadRoot].
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	s, err := fsinfo.ReadRoot(r)
	return Superblock{Filesystem(s.Type), s.UUID, s.Unreadable()}, err
}
