package kernel

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Superblock is the kernel's record of a file system.
type Superblock struct {
	Device mounts.DevNum // as in mountinfo
	Type   string        // of the file system
	Mounts []Mount       // all mounts of it
	Frozen bool          // somebody has frozen it
	// Freezes is how many freezes it has of programs and of the kernel's own; 0 before Linux 6.6,
	// which does not count them.
	Freezes int
	Flags   uint64 // SB_* of linux/fs.h
	// Active is how many references keep it alive: one for each mount, and Others. Count is how many
	// keep its record, of which all the active ones together are one.
	Active, Count int
	// Others is how many references there are to it beyond those of its mounts: of a freeze, of an
	// fs context.
	Others int
}

// Mount is a mount of a superblock, in whatever namespace, or in none: an overlay's layer, or one
// that a process keeps.
type Mount struct {
	ID     int    // as in mountinfo
	Unique uint64 // never reused; 0 where the kernel has none
	// Namespace is the inode number of its namespace, 0 if it is in none.
	Namespace uint64
	// Uses is how often a mount in a namespace is referred to: by files, mappings, directories of
	// processes, and so on. Mounts that stand on it do not count.
	Uses int
	// Follows says that it goes when the mount by which the record was read is unmounted: the kernel
	// passes the unmount on to it, and nothing stands on it.
	Follows bool
}

// Is reports whether it is a mount of a list.
func (m Mount) Is(other mounts.Mount) bool {
	if m.Unique != 0 && other.Unique != 0 {
		return m.Unique == other.Unique
	}
	return m.ID == other.ID
}

// Read reads the record of the file system that m, a mount of the own namespace, shows. Nothing is
// locked meanwhile: an error may come of a change.
func Read(m mounts.Mount) (Superblock, error) {
	s, err := read(m)
	if err != nil {
		return Superblock{}, fmt.Errorf("reading the kernel's own table of the mounts: %w", err)
	}
	return s, nil
}

func read(m mounts.Mount) (Superblock, error) {
	l, err := kernelLayout()
	if err != nil {
		return Superblock{}, err
	}
	mem, err := openMemory()
	if err != nil {
		return Superblock{}, err
	}
	defer mem.close()
	fd, err := unix.Open(m.Point, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Superblock{}, &os.PathError{Op: "open", Path: m.Point, Err: err}
	}
	defer unix.Close(fd)
	t := &tables{layout: l, memory: mem}
	if err := t.findProcessors(); err != nil {
		return Superblock{}, err
	}
	at, err := t.mountOf(fd)
	if err != nil {
		return Superblock{}, err
	}
	there, err := t.readMount(at)
	if err != nil {
		return Superblock{}, err
	}
	if !there.Is(m) {
		return Superblock{}, fmt.Errorf("mount %d is there, not mount %d", there.ID, m.ID)
	}
	s, err := t.superblock(at)
	for i := range s.Mounts {
		if s.Mounts[i].Is(m) {
			s.Mounts[i].Uses-- // the descriptor
		}
	}
	return s, err
}
