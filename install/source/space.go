package source

import (
	"installer/disk"
	"installer/rootfs/image"
)

// Need is the space that an image takes.
type Need struct {
	disk.Space       // on the root: files of the repository, and copies of them
	Boot       int64 // bytes of the kernel's files
	Exact      bool  // equal contents were looked for: nothing is counted twice
}

// measure adds up the space of an installation: each distinct file once, the repository's metadata,
// the deployment's directories (its files are links), and the copies of /etc and /var.
func measure(inv *image.Inventory) Need {
	n := Need{Space: disk.Space{Content: inv.Stored, Inodes: inv.Objects}, Boot: bootBytes(inv.Tree), Exact: !inv.Bound}
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
