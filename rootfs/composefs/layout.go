package composefs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Layouts of an inode's data in i_format (EROFS_INODE_*).
const (
	flatPlain  = 0
	flatInline = 2
	chunkBased = 4
)

const (
	// maxTail is the most of a content or directory that follows its inode, in bytes, unless all of
	// it does not fill a block.
	maxTail = blockSize / 2
	// Bits of the size of a hole's chunks: a block at least, and the format's greatest number.
	minChunkBits, maxChunkBits = 12, 12 + 31
	maxChunks                  = 1024
	nullChunk                  = ^uint32(0)
)

// place is the form of an inode in the image, and its place.
type place struct {
	nid       uint64 // slot
	ino       uint32
	size      uint64 // i_size
	xattrs    int64  // bytes of attributes behind the inode
	blocks    int64  // full blocks of data, from first on
	first     int64
	tail      int64 // bytes of data behind the attributes
	chunkBits int   // of a hole
	extended  bool
}

// mtime is a time of modification.
type mtime struct {
	sec  int64
	nsec uint32
}

func (n *node) mtime() mtime { return mtime{n.in.MtimeSec, n.in.MtimeNsec} }

// layOut places the inodes, and returns the time of modification of the oldest one, and the end of
// the last one.
func (t *tree) layOut() (oldest mtime, end int64, err error) {
	oldest = t.nodes[0].mtime()
	for _, n := range t.nodes {
		if m := n.mtime(); cmp.Or(cmp.Compare(m.sec, oldest.sec), cmp.Compare(m.nsec, oldest.nsec)) < 0 {
			oldest = m
		}
	}
	pos := int64(superOffset + superSize)
	for _, n := range t.nodes {
		n.xattrs = n.xattrSize()
		if n.xattrs/4 > maxIcount {
			return oldest, 0, fmt.Errorf("a file has %d bytes of extended attributes, which are too many", n.xattrs)
		}
		if err := n.shape(); err != nil {
			return oldest, 0, err
		}
		in := n.in
		n.extended = n.mtime() != oldest || max(n.links, in.UID, in.GID) > 1<<16-1 || n.size > 1<<32-1
		pos = n.put(roundUp(pos, slotSize))
	}
	if t.nodes[0].nid > maxRootSlot {
		return oldest, 0, fmt.Errorf("the root has more extended attributes than fit")
	}
	return oldest, roundUp(pos, slotSize), nil
}

// shape divides the data of a node into blocks and a tail.
func (n *node) shape() error {
	in := n.in
	switch {
	case n.kind == modeDir:
		n.blocks, n.tail = dirShape(n.names)
		n.size = uint64(n.blocks*blockSize + n.tail)
	case n.kind == modeSymlink:
		n.size, n.tail = uint64(len(in.Target)), int64(len(in.Target))
	case n.kind != modeRegular || in.isWhiteout():
	case len(in.Content) > 0:
		n.size = uint64(len(in.Content))
		n.blocks, n.tail = split(int64(n.size))
	case in.Size > 0:
		n.size = in.Size
		n.chunkBits = min(max(minChunkBits, bits.Len64(in.Size-1)), maxChunkBits)
		chunks := (in.Size-1)>>n.chunkBits + 1
		if chunks > maxChunks {
			return fmt.Errorf("a file of %d bytes is too large", in.Size)
		}
		n.tail = 4 * int64(chunks)
	}
	return nil
}

// split divides bytes into full blocks and a tail; a large tail is a block.
func split(size int64) (blocks, tail int64) {
	blocks, tail = size/blockSize, size%blockSize
	if tail > maxTail {
		return blocks + 1, 0
	}
	return blocks, tail
}

// put places an inode at pos or behind it, and returns its end. The tail of an inode lies in one
// block.
func (n *node) put(pos int64) int64 {
	behind := n.headSize() + n.xattrs
	if n.kind == modeSymlink {
		pos = n.putLink(pos, behind)
	} else if room := blockSize - (pos+behind)%blockSize; room < n.tail {
		skip := roundUp(room, slotSize)
		if n.tail <= blockSize-(pos+behind+skip)%blockSize {
			pos += skip
		} else {
			n.blocks, n.tail, pos = n.blocks+1, 0, roundUp(pos, blockSize)
		}
	}
	n.nid = uint64(pos / slotSize)
	return pos + behind + n.tail
}

// putLink places a symbolic link: inode and target lie in one block, or the target has its own.
func (n *node) putLink(pos, behind int64) int64 {
	all := behind + n.tail
	if all >= blockSize {
		n.blocks, n.tail = 1, 0
	}
	if pos/blockSize != (pos+all-1)/blockSize {
		return roundUp(pos, blockSize)
	}
	return pos
}

func (n *node) headSize() int64 {
	if n.extended {
		return fullSize
	}
	return compactSize
}

// placeBlocks gives the data of nodes its blocks, from the block next on, and returns the size of
// the image in bytes.
func (t *tree) placeBlocks(next int64) int64 {
	for _, n := range t.nodes {
		if n.blocks > 0 {
			n.first = next
			next += n.blocks
		}
	}
	return next * blockSize
}

func (n *node) mode() uint32 { return n.kind | n.in.Mode&^modeType }

// format returns i_format.
func (n *node) format() uint16 {
	layout := uint16(flatPlain)
	switch {
	case n.chunkBits > 0:
		layout = chunkBased
	case n.tail > 0:
		layout = flatInline
	}
	if n.extended {
		return layout<<1 | 1
	}
	return layout << 1
}

// union returns i_u, whose meaning depends on the kind and the layout.
func (n *node) union() uint32 {
	switch {
	case n.kind == modeChar || n.kind == modeBlock:
		return n.in.Rdev
	case n.chunkBits > 0:
		return uint32(n.chunkBits - minChunkBits)
	}
	return uint32(n.first)
}

// appendTail appends the data that follows the inode.
func (n *node) appendTail(b []byte) []byte {
	switch {
	case n.tail == 0:
	case n.kind == modeDir:
		groups := dirBlocks(n.names)
		b = appendDirents(b, groups[len(groups)-1])
	case n.kind == modeSymlink:
		b = append(b, n.in.Target...)
	case n.chunkBits > 0:
		b = append(b, bytes.Repeat([]byte{0xff}, int(n.tail))...)
	default:
		b = append(b, n.in.Content[n.blocks*blockSize:]...)
	}
	return b
}

// appendBlocks appends the blocks of data.
func (n *node) appendBlocks(b []byte) []byte {
	switch {
	case n.kind == modeDir:
		for _, names := range dirBlocks(n.names)[:n.blocks] {
			b = pad(appendDirents(b, names), blockSize)
		}
	case n.kind == modeSymlink:
		b = append(b, n.in.Target...)
	case n.chunkBits > 0: // the table of chunks that did not fit behind the inode
		for range blockSize / 4 {
			b = binary.LittleEndian.AppendUint32(b, nullChunk)
		}
	default:
		b = append(b, n.in.Content[:min(int64(len(n.in.Content)), n.blocks*blockSize)]...)
	}
	return pad(b, blockSize)
}
