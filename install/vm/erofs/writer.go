package erofs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"installer/rootfs/image"
)

const (
	blockBits = 12
	blockSize = 1 << blockBits
)

// Writer is an [image.Sink] that keeps every content in blocks of one file.
type Writer struct {
	file    *os.File
	blocks  atomic.Uint64 // taken so far
	buffers sync.Pool
}

// NewWriter returns a writer to an empty file, which stays the caller's.
func NewWriter(file *os.File) *Writer {
	w := &Writer{file: file}
	w.blocks.Store(1) // the first is the superblock's
	w.buffers.New = func() any { b := make([]byte, 128<<10); return &b }
	return w
}

// place is where a content lies: its first block. The zero value is no place.
func place(id image.ContentID) uint64 { return binary.LittleEndian.Uint64(id[:]) }

// Store implements [image.Sink]. The name of a content is its place.
func (w *Writer) Store(_ context.Context, _ image.Meta, target string, size int64, content io.Reader) (image.ContentID, error) {
	var id image.ContentID
	if target != "" || size == 0 { // a target stands in the inode
		return id, nil
	}
	count := blocksFor(size)
	first := w.blocks.Add(count) - count
	buffer := w.buffers.Get().(*[]byte)
	defer w.buffers.Put(buffer)
	n, err := io.CopyBuffer(io.NewOffsetWriter(w.file, int64(first)*blockSize), content, *buffer)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes of %d", n, size)
	}
	if err != nil {
		return id, fmt.Errorf("writing to the file system image: %w", err)
	}
	binary.LittleEndian.PutUint64(id[:], first)
	return id, nil
}

// Content reads a regular file that was stored.
func (w *Writer) Content(n *image.Node) (*io.SectionReader, error) {
	if !n.IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.NewSectionReader(w.file, int64(place(n.Content))*blockSize, n.Size), nil
}

func blocksFor(size int64) uint64 { return uint64((size + blockSize - 1) / blockSize) }
