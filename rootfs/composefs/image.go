package composefs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	blockSize   = 4096
	slotSize    = 32 // inodes are numbered by the slot in which they begin
	compactSize = 32
	fullSize    = 64
	superOffset = 1024
	superSize   = 128
	direntSize  = 12 // struct erofs_dirent

	headerMagic   = 0xd078629a
	headerVersion = 1
	headerACL     = 1
	superMagic    = 0xE0F5E1E2
	// superFeatures are times of modification and the filter of attributes' names
	// (EROFS_FEATURE_COMPAT_MTIME and _XATTR_FILTER).
	superFeatures = 2 | 4

	maxRootSlot = 1<<16 - 1
	maxIcount   = 1<<16 - 1
)

// Versions are the least version of an image, and the greatest one to which its tree may raise it:
// one with whiteouts needs version 1.
type Versions struct{ Min, Max int }

// Image is an image that is laid out, and can be written.
type Image struct {
	tree   *tree
	shared []*attribute
	end    int64 // of the inodes; the shared attributes follow
	start  int64 // of the blocks
	size   int64
	oldest mtime
}

// New lays out the image of a tree, which must not change before the image is written.
func New(root *Inode, v Versions) (*Image, error) {
	t, err := newTree(root, v)
	if err != nil {
		return nil, fmt.Errorf("laying out a composefs image: %w", err)
	}
	i := &Image{tree: t}
	var length int64
	i.shared, length = t.attrs.share()
	if i.oldest, i.end, err = t.layOut(); err != nil {
		return nil, fmt.Errorf("laying out a composefs image: %w", err)
	}
	i.start = roundUp(i.end+length, blockSize)
	i.size = t.placeBlocks(i.start / blockSize)
	return i, nil
}

// Size is the bytes of the image.
func (i *Image) Size() int64 { return i.size }

// WriteTo writes the image.
func (i *Image) WriteTo(to io.Writer) (int64, error) {
	w := &writer{out: bufio.NewWriterSize(to, 1<<20)}
	w.put(i.head())
	for _, n := range i.tree.nodes {
		w.fill(int64(n.nid) * slotSize)
		w.put(i.appendInode(w.buf[:0], n))
	}
	w.fill(i.end)
	for _, x := range i.shared {
		w.put(x.append(w.buf[:0]))
	}
	w.fill(i.start)
	for _, n := range i.tree.nodes {
		if n.blocks > 0 {
			w.put(n.appendBlocks(w.buf[:0]))
		}
	}
	w.fill(i.size)
	if w.err == nil {
		w.err = w.out.Flush()
	}
	if w.err != nil {
		return w.at, fmt.Errorf("writing a composefs image: %w", w.err)
	}
	return w.at, nil
}

// writer counts the bytes of an image, and keeps the first error.
type writer struct {
	out *bufio.Writer
	buf []byte
	at  int64
	err error
}

// put writes data, which may become the buffer.
func (w *writer) put(data []byte) {
	w.buf = data
	if w.err == nil {
		_, w.err = w.out.Write(data)
	}
	w.at += int64(len(data))
}

// fill writes zeros up to a place.
func (w *writer) fill(to int64) {
	for w.at < to {
		w.put(append(w.buf[:0], make([]byte, min(to-w.at, blockSize))...))
	}
}

// head returns the header and the superblock.
func (i *Image) head() []byte {
	b := make([]byte, superOffset+superSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], headerMagic)
	le.PutUint32(b[4:], headerVersion)
	if i.tree.attrs.acl {
		le.PutUint32(b[8:], headerACL)
	}
	le.PutUint32(b[12:], uint32(i.tree.version))
	s := b[superOffset:]
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], superFeatures)
	s[12] = verityBlockBits
	le.PutUint16(s[14:], uint16(i.tree.nodes[0].nid))
	le.PutUint64(s[16:], uint64(len(i.tree.nodes)))
	le.PutUint64(s[24:], uint64(i.oldest.sec))
	le.PutUint32(s[32:], i.oldest.nsec)
	le.PutUint32(s[36:], uint32(i.size/blockSize))
	le.PutUint32(s[44:], uint32(i.end/blockSize))
	return b
}

// appendInode appends struct erofs_inode_compact or _extended, its attributes and the data behind
// them.
func (i *Image) appendInode(b []byte, n *node) []byte {
	le := binary.LittleEndian
	icount := uint16(0)
	if n.xattrs > 0 {
		icount = uint16((n.xattrs-xattrHeader)/4 + 1)
	}
	b = le.AppendUint16(b, n.format())
	b = le.AppendUint16(b, icount)
	b = le.AppendUint16(b, uint16(n.mode()))
	if n.extended {
		b = le.AppendUint16(b, 0)
		b = le.AppendUint64(b, n.size)
	} else {
		b = le.AppendUint16(b, uint16(n.links))
		b = le.AppendUint32(b, uint32(n.size))
		b = le.AppendUint32(b, 0)
	}
	b = le.AppendUint32(b, n.union())
	b = le.AppendUint32(b, n.ino)
	if n.extended {
		b = le.AppendUint32(b, n.in.UID)
		b = le.AppendUint32(b, n.in.GID)
		b = le.AppendUint64(b, uint64(n.in.MtimeSec))
		b = le.AppendUint32(b, n.in.MtimeNsec)
		b = le.AppendUint32(b, n.links)
		b = append(b, make([]byte, 16)...)
	} else {
		b = le.AppendUint16(b, uint16(n.in.UID))
		b = le.AppendUint16(b, uint16(n.in.GID))
		b = le.AppendUint32(b, 0)
	}
	b = n.appendXattrs(b, i.end%blockSize)
	return n.appendTail(b)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// pad fills up with zeros to a multiple of unit.
func pad(b []byte, unit int) []byte {
	for len(b)%unit != 0 {
		b = append(b, 0)
	}
	return b
}
