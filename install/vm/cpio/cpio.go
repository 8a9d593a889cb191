// Package cpio writes archives in the format "newc", from which the Linux kernel unpacks an
// initramfs (Documentation/driver-api/early-userspace/buffer-format.rst). Everything belongs to
// root.
//
// Reading archives does not belong here.
package cpio

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Writer writes one archive. Its methods do nothing after the first error, which Close returns.
type Writer struct {
	out    io.Writer
	inode  int
	offset int64
	err    error
}

// NewWriter returns a Writer to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Dir adds a directory, whose parent was added before it.
func (w *Writer) Dir(name string) { w.header(name, unix.S_IFDIR|0o755, 0, 0, 0) }

// Device adds a device node; mode includes its type.
func (w *Writer) Device(name string, mode, major, minor uint32) {
	w.header(name, mode, 0, major, minor)
}

// File adds a regular file with these permissions.
func (w *Writer) File(name string, perm uint32, data []byte) {
	w.header(name, unix.S_IFREG|perm, int64(len(data)), 0, 0)
	w.write(data)
	w.pad()
}

// CopyFile adds an executable with the content of f.
func (w *Writer) CopyFile(name string, f *os.File) {
	info, err := f.Stat()
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return
	}
	w.header(name, unix.S_IFREG|0o755, info.Size(), 0, 0)
	n, err := io.Copy(w.out, io.NewSectionReader(f, 0, info.Size()))
	w.offset += n
	if w.err == nil {
		w.err = err
	}
	w.pad()
}

// Close ends the archive.
func (w *Writer) Close() error {
	w.header("TRAILER!!!", 0, 0, 0, 0)
	return w.err
}

func (w *Writer) header(name string, mode uint32, size int64, major, minor uint32) {
	w.inode++
	const links, zero = 1, 0
	w.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.inode, mode, zero, zero, links, zero, size, zero, zero, major, minor, len(name)+1, zero, name))
	w.pad()
}

func (w *Writer) pad() { w.write(make([]byte, (4-w.offset%4)%4)) }

func (w *Writer) write(p []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(p)
		w.offset += int64(len(p))
	}
}
