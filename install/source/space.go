package source

import (
	"installer/disk"
	"installer/rootfs/image"
)

const mib = 1 << 20

// freeRoom is what a root must have left, in bytes: a system that boots with no room at all is of
// no use.
const freeRoom = 64 * mib

// Need is what an image takes on a root.
type Need struct {
	Content int64 // bytes in whole blocks: files of the repository, and copies of them
	Inodes  int64
	Boot    int64 // bytes of the kernel's files
	Exact   bool  // equal contents were looked for: nothing is counted twice
}

// measure adds up what an installation writes: each distinct file once, the repository's metadata,
// the deployment's directories (its files are links), and the copies of /etc and /var.
func measure(inv *image.Inventory) Need {
	n := Need{Content: inv.Stored, Inodes: inv.Objects, Boot: bootBytes(inv.Tree), Exact: !inv.Bound}
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
			n.Content += bytes
		}
	}
	return n
}

func (n *Need) add(inodes, bytesEach int64) {
	n.Inodes += inodes
	n.Content += inodes * bytesEach
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

// FreeRoot is how much must be free on a root that is made already, in bytes. What an ext4 has set
// aside for inodes is not counted as its size.
func (n Need) FreeRoot(fs disk.Filesystem) int64 {
	size := n.Content + freeRoom
	switch fs {
	case disk.XFS:
		return size + n.Inodes*xfsInode
	case disk.Btrfs:
		return size + n.Inodes*btrfsItem
	}
	return size
}

// Root is how large a root of that kind must be, in bytes.
func (n Need) Root(fs disk.Filesystem) int64 {
	size := n.Content + freeRoom
	switch fs {
	case disk.XFS:
		return size + n.Inodes*xfsInode + xfsFixed
	case disk.Btrfs:
		return size + n.Inodes*btrfsItem + btrfsFixed
	}
	size += ext4JournalSize
	size += size * ext4InodeSize / ext4InodeRatio
	return max(size, n.Inodes*ext4InodeRatio)
}

// bootBytes returns the size of the kernel's files that are copied to a boot file system.
func bootBytes(tree *image.Tree) int64 {
	var sum int64
	modules := tree.Lookup("usr/lib/modules")
	if modules == nil {
		return 0
	}
	for _, version := range modules.Names() {
		for _, name := range []string{"vmlinuz", "initramfs.img", "initramfs", "devicetree", "dtb"} {
			if n := modules.Lookup(version + "/" + name); n != nil {
				sum += n.Size
				_, _, _, bytes := (&image.Tree{Root: n}).Stats()
				sum += bytes
			}
		}
	}
	return sum
}
