package install

import (
	"installer/disk"
	"installer/rootfs/image"
)

const mib = 1 << 20

// freeRoom is what a root must have left, in bytes: a system that boots with no
// room at all is of no use.
const freeRoom = 64 * mib

// need is what an image takes on a root.
type need struct {
	content int64 // bytes in whole blocks: files of the repository, and copies of them
	inodes  int64
}

// measure adds up what an installation writes: each distinct file once, the
// repository's metadata, the deployment's directories (its files are links),
// and the copies of /etc and /var.
func measure(inv *image.Inventory) need {
	n := need{content: inv.Stored, inodes: inv.Objects}
	_, dirs, _, _ := inv.Tree.Stats()
	for _, layer := range inv.Tree.Layers {
		_, layerDirs, _, _ := (&image.Tree{Root: layer}).Stats()
		dirs += layerDirs // a tree object each
	}
	_, merged, _, _ := inv.Tree.Stats()
	n.add(int64(dirs+merged), image.StoredBlock)
	const fanOut = 256 // directories of the object store
	n.add(fanOut, image.StoredBlock)
	for _, name := range []string{"usr/etc", "var"} {
		if dir := inv.Tree.Lookup(name); dir != nil {
			files, dirs, links, bytes := (&image.Tree{Root: dir}).Stats()
			n.add(int64(files+dirs+links), image.StoredBlock/2) // a last block is half full
			n.content += bytes
		}
	}
	return n
}

func (n *need) add(inodes, bytesEach int64) {
	n.inodes += inodes
	n.content += inodes * bytesEach
}

// What the file systems take beside content.
const (
	xfsInode        = 512       // bytes
	ext4InodeRatio  = 16 << 10  // bytes of the file system for each inode it can have (mke2fs.conf(5), inode_ratio)
	ext4InodeSize   = 256       // bytes, set aside for each of those
	btrfsItem       = 1 << 10   // bytes of metadata for a file: inode, name, extent and checksums, kept twice
	btrfsFixed      = 128 * mib // metadata is kept twice, in chunks
	xfsFixed        = 64 * mib  // the log's least size since xfsprogs 5.19
	ext4JournalSize = 64 * mib
)

// mountedRoot is how much must be free on a root that is made already, in bytes.
// What an ext4 has set aside for inodes is not counted as its size.
func (n need) mountedRoot(fs disk.Filesystem) int64 {
	size := n.content + freeRoom
	switch fs {
	case disk.XFS:
		return size + n.inodes*xfsInode
	case disk.Btrfs:
		return size + n.inodes*btrfsItem
	}
	return size
}

// root is how large a root of that kind must be, in bytes.
func (n need) root(fs disk.Filesystem) int64 {
	size := n.content + freeRoom
	switch fs {
	case disk.XFS:
		return size + n.inodes*xfsInode + xfsFixed
	case disk.Btrfs:
		return size + n.inodes*btrfsItem + btrfsFixed
	}
	size += ext4JournalSize
	size += size * ext4InodeSize / ext4InodeRatio
	return max(size, n.inodes*ext4InodeRatio)
}
