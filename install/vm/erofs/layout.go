package erofs

import (
	"fmt"

	"installer/rootfs/image"
)

const (
	slotSize  = 32 // inodes are numbered by the slot they begin in
	inodeSize = 64 // an extended inode
	// firstSlot keeps 0 from being the number of the root's inode.
	firstSlot   = 2
	maxRootSlot = 1<<16 - 1 // the superblock has 16 bits for it
)

// inode is one inode with its place.
type inode struct {
	node   *image.Node
	nid    uint64 // slot
	block  uint64 // first block of its data
	size   int64  // bytes of its data
	links  uint32
	xattrs []byte
	inline bool // its data follows it at once
	parent *inode
	// names are a directory's entries in their order, "." and ".." included.
	names []string
}

// layout places every inode of a tree and every block of its directories.
type layout struct {
	inodes []*inode // in the order of their slots, the root first
	known  map[*image.Node]*inode
	next   uint64 // free block
	end    int64  // bytes of inodes so far
	start  uint64 // first block of the inodes
}

// newLayout lays out a tree whose contents end before the block next.
func newLayout(root *image.Node, next uint64) (*layout, error) {
	l := &layout{known: map[*image.Node]*inode{}, next: next, end: firstSlot * slotSize}
	if _, err := l.add(root, nil); err != nil {
		return nil, err
	}
	if l.inodes[0].nid > maxRootSlot {
		return nil, fmt.Errorf("the root has more extended attributes than fit")
	}
	l.start = l.next
	return l, nil
}

// add places a node and the nodes below it. A file with several names is placed once.
func (l *layout) add(n *image.Node, parent *inode) (*inode, error) {
	if i := l.known[n]; i != nil && !n.IsDir() {
		i.links++
		return i, nil
	}
	i := &inode{node: n, links: 1, parent: parent}
	if parent == nil {
		i.parent = i
	}
	var err error
	if i.xattrs, err = encodeXattrs(n.Xattrs); err != nil {
		return nil, err
	}
	l.placeData(i)
	l.placeInode(i)
	l.known[n] = i
	l.inodes = append(l.inodes, i)
	if !n.IsDir() {
		return i, nil
	}
	i.links = 2
	for _, name := range n.Names() {
		child := n.Children[name]
		if child.IsDir() {
			i.links++
		}
		if _, err := l.add(child, i); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return i, nil
}

// placeData finds room for the data of an inode. The data of files is written already.
func (l *layout) placeData(i *inode) {
	switch n := i.node; {
	case n.IsDir():
		i.names = entryNames(n)
		i.size = directorySize(i.names)
		i.block = l.take(i.size)
	case n.IsSymlink():
		i.size = int64(len(n.Target))
		if i.inline = inodeSize+int64(len(i.xattrs))+i.size <= blockSize; !i.inline {
			i.block = l.take(i.size)
		}
	default:
		i.size, i.block = n.Size, place(n.Content)
	}
}

func (l *layout) take(size int64) uint64 {
	first := l.next
	l.next += blocksFor(size)
	return first
}

// placeInode gives an inode its slot. An inode that fits into a block does not cross
// into the next: data that follows its inode must not (erofs.rst, "inline").
func (l *layout) placeInode(i *inode) {
	length := i.length()
	if room := blockSize - l.end%blockSize; length > room && length <= blockSize {
		l.end += room
	}
	i.nid = uint64(l.end / slotSize)
	l.end = roundUp(l.end+length, slotSize)
}

// length is the bytes of an inode with all that follows it.
func (i *inode) length() int64 {
	length := inodeSize + int64(len(i.xattrs))
	if i.inline {
		length += i.size
	}
	return length
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
