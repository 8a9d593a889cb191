package erofs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"installer/rootfs/image"
)

const (
	superOffset = 1024
	superSize   = 128
	superMagic  = 0xE0F5E1E2
)

// Layouts of an inode's data, in i_format (EROFS_INODE_FLAT_*).
const (
	flatPlain  = 0
	flatInline = 2
)

// Finish writes everything but the contents, which were all stored by this
// writer, and returns the size of the image in bytes: whole blocks.
func (w *Writer) Finish(root *image.Node) (int64, error) {
	l, err := newLayout(root, w.blocks.Load())
	if err != nil {
		return 0, fmt.Errorf("laying out the file system image: %w", err)
	}
	size := int64(l.start)*blockSize + roundUp(l.end, blockSize)
	for _, write := range []func(*layout) error{w.writeData, w.writeInodes} {
		if err := write(l); err != nil {
			return 0, fmt.Errorf("writing the file system image: %w", err)
		}
	}
	if _, err := w.file.WriteAt(l.superblock(size/blockSize), superOffset); err != nil {
		return 0, fmt.Errorf("writing the file system image: %w", err)
	}
	if err := w.file.Truncate(size); err != nil {
		return 0, fmt.Errorf("setting the size of the file system image: %w", err)
	}
	return size, nil
}

// writeData writes directories, and targets that did not fit behind their inode.
func (w *Writer) writeData(l *layout) error {
	for _, i := range l.inodes {
		var data []byte
		switch {
		case i.node.IsDir():
			data = l.encodeDirectory(i)
		case i.node.IsSymlink() && !i.inline:
			data = []byte(i.node.Target)
		default:
			continue
		}
		if _, err := w.file.WriteAt(data, int64(i.block)*blockSize); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) writeInodes(l *layout) error {
	out := bufio.NewWriterSize(io.NewOffsetWriter(w.file, int64(l.start)*blockSize), 1<<20)
	var at int64
	for number, i := range l.inodes {
		begin := int64(i.nid) * slotSize
		data := i.encode(uint32(number + 1))
		if _, err := out.Write(append(make([]byte, begin-at), data...)); err != nil {
			return err
		}
		at = begin + int64(len(data))
	}
	return out.Flush()
}

// encode returns struct erofs_inode_extended with the data that follows it.
func (i *inode) encode(number uint32) []byte {
	const extended = 1
	format, block := uint16(extended|flatPlain<<1), i.block
	if i.inline {
		format, block = extended|flatInline<<1, 0
	}
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	le.PutUint16(b[0:], format)
	le.PutUint16(b[2:], xattrCount(i.xattrs))
	le.PutUint16(b[4:], uint16(i.node.Mode))
	le.PutUint64(b[8:], uint64(i.size))
	le.PutUint32(b[16:], uint32(block))
	le.PutUint32(b[20:], number)
	le.PutUint32(b[24:], i.node.UID)
	le.PutUint32(b[28:], i.node.GID)
	le.PutUint32(b[44:], i.links)
	b = append(b, i.xattrs...)
	if i.inline {
		b = append(b, i.node.Target...)
	}
	return b
}

// superblock gives struct erofs_super_block, without optional features.
func (l *layout) superblock(blocks int64) []byte {
	b := make([]byte, superSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], superMagic)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(l.inodes[0].nid))
	le.PutUint64(b[16:], uint64(len(l.inodes)))
	le.PutUint32(b[36:], uint32(blocks))
	le.PutUint32(b[40:], uint32(l.start))
	return b
}
