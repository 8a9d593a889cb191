package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Space is the room that an installation takes on a root.
type Space struct {
	Content int64 // bytes of files, each in whole blocks of 4 KiB
	Inodes  int64
}

// spareRoom is the room that a root must have left, in bytes: a system that boots with no room at
// all is of no use.
const spareRoom = 64 * mib

// Bytes that a file takes beside its content.
const (
	nameBytes  = 256 // its names in directories: of the object, and of the deployed file
	xfsInode   = 512 + 32
	xfsDelayed = 4 << 10 // blocks for the map of a file, until it is written out
	btrfsItems = 1 << 10 // inode, references, names, extent, in one copy of the metadata
)

// Free returns the bytes that must be free on a root that is made already. An ext4 has its inodes
// set aside; they are counted apart.
func (s Space) Free(fs Filesystem) int64 {
	size := s.Content + s.Inodes*nameBytes + spareRoom
	switch fs {
	case XFS:
		return size + s.Inodes*xfsInode
	case Btrfs:
		return size + 2*s.btrfsMetadata()
	}
	return size
}

// btrfsMetadata returns the bytes of metadata, of which a btrfs keeps two copies: items, a checksum
// of 4 bytes for each block, and the space that the kernel keeps back for its own transactions.
func (s Space) btrfsMetadata() int64 {
	used := s.Inodes*btrfsItems + s.Content/1024*5/4
	return used + min(used, 512*mib)
}

// Root returns how large the partition of a root must be, in bytes.
func (s Space) Root(fs Filesystem) int64 {
	size := s.Free(fs)
	if fs == Ext4 {
		size = max(size, (s.Inodes+100)*ext4InodeRatio)
	}
	// The overhead grows with the size, by a sixteenth of the growth at most: so this comes to
	// rest.
	for {
		next := roundUp(s.Free(fs)+s.overhead(fs, size), alignment)
		if next <= size {
			return roundUp(size, alignment)
		}
		size = next
	}
}

// overhead returns the bytes that a new file system of a size takes for itself. The numbers are
// upper bounds of measurements from 320 MiB to 150 GiB.
func (s Space) overhead(fs Filesystem, size int64) int64 {
	switch fs {
	case XFS:
		// The log, the kernel's reserve, and the reserves of the allocation groups, that of the
		// reverse mapping included, which newer versions of mkfs.xfs switch on; and the reserve for
		// files whose content is not written out yet, some thousands at a time.
		return max(64*mib, min(size/2048, 2<<30)) + 34*mib + size/51 + min(s.Inodes, 8192)*xfsDelayed
	case Btrfs:
		// Metadata is allocated in chunks of which at least one is there, twice.
		chunk := max(32*mib, min(size/20, 256*mib))
		if size > 50<<30 {
			chunk = 1 << 30
		}
		return 24*mib + max(0, 2*(chunk-s.btrfsMetadata())) + 2*min(chunk, s.btrfsMetadata())/4
	}
	return ext4Overhead(size)
}

const (
	ext4InodeRatio = 16 << 10  // bytes of the file system for each inode (mke2fs.conf(5), inode_ratio)
	ext4InodeSize  = 256       // bytes
	ext4Small      = 512 * mib // below it, mke2fs makes four times as many inodes
	ext4Reserve    = 16 * mib  // that the kernel keeps back for writes that are under way
)

// ext4Overhead adds up the inodes, the journal, the group descriptors with room to grow and their
// copies, the bitmaps and the kernel's reserve.
func ext4Overhead(size int64) int64 {
	inodes := size / ext4InodeRatio * ext4InodeSize
	if size < ext4Small {
		inodes *= 4
	}
	return inodes + ext4Journal(size) + min(72*mib, size/200) + size/10000 + ext4Reserve
}

// ext4Journal returns the bytes of the journal that mke2fs makes.
func ext4Journal(size int64) int64 {
	for _, step := range []struct{ below, journal int64 }{
		{128 * mib, 4 * mib}, {1 << 30, 16 * mib}, {2 << 30, 32 * mib}, {16 << 30, 64 * mib}, {32 << 30, 128 * mib},
		{64 << 30, 256 * mib}, {128 << 30, 512 * mib},
	} {
		if size < step.below {
			return step.journal
		}
	}
	return 1 << 30
}

// NoRoomError is a new file system that has too little room for an installation.
type NoRoomError struct {
	Filesystem Filesystem
	Unit       string // "bytes" or "inodes"
	Need, Free int64
}

func (e *NoRoomError) Error() string {
	text := fmt.Sprintf("the new %s has too little room: %d %s are needed, %d are free", e.Filesystem, e.Need, e.Unit, e.Free)
	if e.Unit == "bytes" {
		text += fmt.Sprintf(" (%d MiB of %d MiB)", e.Free/mib, (e.Need+mib-1)/mib)
	}
	return text + "; to do: give it a larger disk, or a larger root (--root-size)"
}

// CheckFree asks a mounted file system for its free space and inodes, and fails with [*NoRoomError]
// where they are too few. Only root can use all of the free space of an ext4.
func (s Space) CheckFree(dir string, fs Filesystem) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("reading the free space of %s: %w", dir, err)
	}
	free := int64(st.Bfree) * st.Bsize
	if need := s.Free(fs); free < need {
		return &NoRoomError{fs, "bytes", need, free}
	}
	// A btrfs has its first chunks of metadata set aside; the available bytes are for files.
	if free, need := int64(st.Bavail)*st.Bsize, s.Content+spareRoom; fs == Btrfs && free < need {
		return &NoRoomError{fs, "bytes", need, free}
	}
	if free := int64(st.Ffree); st.Files > 0 && free < s.Inodes { // a btrfs has no fixed number
		return &NoRoomError{fs, "inodes", s.Inodes, free}
	}
	return nil
}
