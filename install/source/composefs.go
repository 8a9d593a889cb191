package source

import (
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// Upper bounds of the bytes of a composefs image for each file.
const (
	composefsInode  = 64 + 12 + 32      // inode, header of the attributes, padding
	composefsXattr  = 8                 // beside name and value
	composefsDirent = 12                // beside the name
	composefsBlock  = 4096              // last block of a directory
	composefsFile   = 4 + 24 + 24 + 70  // the map of a hole, and the attributes that name the backing file
	composefsDigest = 36                // in such an attribute
	composefsWhole  = 64<<10 + 256*2*32 // beside the files: superblock, hidden folders, last blocks
)

// addComposefs adds the composefs image of a deployment, and the Merkle trees of fs-verity.
func (n *Need) addComposefs(tree *image.Tree, s deploy.RootSettings) {
	if !s.Composefs.Wanted() {
		return
	}
	size := int64(composefsWhole)
	_ = tree.Walk(func(_ string, f *image.Node) error { // which never fails
		size += composefsInode
		for _, x := range f.Xattrs {
			size += composefsXattr + int64(len(x.Name)+len(x.Value))
		}
		switch {
		case f.IsDir():
			size += composefsBlock
			for name := range f.Children {
				size += composefsDirent + int64(len(name))
			}
		case f.IsSymlink():
			size += int64(len(f.Target))
		default:
			size += composefsFile
			if s.Verity {
				size += composefsDigest
			}
		}
		return nil
	})
	n.add(1, size)
	if s.Verity {
		n.Content += n.Inodes*image.StoredBlock + n.Content/64
	}
}
