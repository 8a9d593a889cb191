package vm

import (
	"io"
	"io/fs"
	"runtime"

	"installer/rootfs/bootable"
	"installer/rootfs/image"
)

// checkBootable refuses an image that makes no host which starts and can be updated, as the guest would. What is worth
// a note the guest notes.
func checkBootable(img *image.Image, tree bootable.Tree, facts func(name string) *bootable.Facts) error {
	arch := runtime.GOARCH
	if img.Config != nil {
		arch = img.Architecture
	}
	if _, err := bootable.Check(tree, bootable.Options{Arch: arch, Facts: facts}); err != nil {
		return &image.SourceError{Ref: img.Ref.String(), Err: err}
	}
	return nil
}

// contents is a merged tree of which every content can be read.
type contents struct {
	image.InventoryFS
	read func(*image.Node) (*io.SectionReader, error)
}

// Open opens a regular file.
func (c contents) Open(name string) (fs.File, error) {
	info, err := c.Stat(name)
	if err != nil {
		return nil, err
	}
	r, err := c.read(info.Sys().(*image.Node))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return contentFile{r, info}, nil
}

// facts looks into a file.
func (c contents) facts(name string) *bootable.Facts {
	file, err := c.Open(name)
	if err != nil {
		return nil
	}
	facts, err := bootable.Look(name, file)
	if err != nil {
		return nil
	}
	return facts
}

// contentFile is an open file of contents.
type contentFile struct {
	*io.SectionReader
	info fs.FileInfo
}

func (f contentFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f contentFile) Close() error               { return nil }
