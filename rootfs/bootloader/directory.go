package bootloader

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Directory is a place for boot files that is mounted: an EFI system partition, or the directory boot. Nothing in it
// leads out of it. What is written is in the page cache until the file system is synced.
type Directory struct {
	root *os.Root
}

// NewDirectory makes a place of a directory, which stays the caller's to close.
func NewDirectory(root *os.Root) *Directory { return &Directory{root: root} }

// MkdirAll implements Place.
func (d *Directory) MkdirAll(path string) error { return d.root.MkdirAll(path, 0o755) }

// WriteFile implements Place.
func (d *Directory) WriteFile(path string, size int64, r io.Reader) error {
	f, err := d.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, size))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of content, %d were announced", n, size)
	}
	return err
}

// Open implements fs.FS, for what was written to be read back.
func (d *Directory) Open(name string) (fs.File, error) { return d.root.Open(name) }

var (
	_ Place = (*Directory)(nil)
	_ fs.FS = (*Directory)(nil)
)
