package bootloader

import (
	"io"
	"io/fs"

	"installer/rootfs/beneath"
)

// Directory is a place for boot files that is mounted: an EFI system partition, or the directory
// boot. Nothing in it leads out of it. Files are in the page cache until the file system is synced.
type Directory struct {
	dir *beneath.Dir
}

// NewDirectory makes a place of a directory, which stays the caller's to close.
func NewDirectory(dir *beneath.Dir) *Directory { return &Directory{dir: dir} }

// MkdirAll implements Place.
func (d *Directory) MkdirAll(path string) error { return d.dir.MkdirAll(path, 0o755) }

// WriteFile implements Place.
func (d *Directory) WriteFile(path string, size int64, r io.Reader) error {
	return d.dir.Replace(path, r, size, 0o644)
}

// Open implements fs.FS, to read files back.
func (d *Directory) Open(name string) (fs.File, error) { return d.dir.OpenInside(name) }

var (
	_ Place = (*Directory)(nil)
	_ fs.FS = (*Directory)(nil)
)
