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
	written := map[*image.Node]bool{}
	n.addLists(written, inv.Tree.Root)
	for _, layer := range inv.Tree.Layers {
		n.addLists(written, layer)
	}
	_, merged, _, _ := inv.Tree.Stats()
	n.add(int64(merged), image.StoredBlock)
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

// addLists adds the objects that list the directories of a tree, but for those that were written:
// layers share directories with the merged tree. A layer of objects is one directory, which may list
// most of the image.
func (n *Need) addLists(written map[*image.Node]bool, dir *image.Node) {
	if written[dir] {
		return
	}
	written[dir] = true
	var bytes int64
	for name, child := range dir.Children {
		const checksum, ends = 32, 8 // bytes of a checksum, and of the offsets of an entry
		bytes += int64(len(name)) + checksum + ends
		if child.IsDir() {
			bytes += checksum
			n.addLists(written, child)
		}
	}
	n.add(1, max(1, (bytes+image.StoredBlock-1)/image.StoredBlock)*image.StoredBlock)
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
