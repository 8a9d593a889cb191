package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"installer/install/outfile"
	"installer/install/vm/erofs"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// tree is the merged tree of the image, as a file system image for the guest.
type tree struct {
	file    *os.File
	writer  *erofs.Writer
	tree    *image.Tree
	version string // of the kernel
	size    int64  // bytes
}

// readTree reads the image into a file without a name in dir.
func readTree(ctx context.Context, img *image.Image, dir string, progress func(int64)) (_ *tree, err error) {
	file, err := outfile.Scratch(dir)
	if err != nil {
		return nil, err
	}
	t := &tree{file: file, writer: erofs.NewWriter(file)}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if t.tree, err = img.Import(ctx, t.writer, image.ImportOptions{Progress: progress, OwnNames: true}); err != nil {
		return nil, full(err, dir)
	}
	if t.version = kernelVersion(t.tree); t.version == "" {
		return nil, &image.SourceError{Ref: img.Ref.String(), Err: errors.New("it has no kernel in /" + modulesDir)}
	}
	if t.size, err = t.writer.Finish(containerRoot(t.tree.Root)); err != nil {
		return nil, full(err, dir)
	}
	return t, nil
}

// close closes the file. It may be called again.
func (t *tree) close() error {
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// full returns a [*DirFullError] of dir if err is due to a full file system, else err.
func full(err error, dir string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &DirFullError{Dir: dir, Err: err}
	}
	return err
}

const modulesDir = "usr/lib/modules"

// kernelVersion is the version of the kernel of a tree, "" if it has none.
func kernelVersion(t *image.Tree) string {
	modules := t.Lookup(modulesDir)
	if modules == nil {
		return ""
	}
	for _, name := range modules.Names() {
		if n := modules.Lookup(name + "/vmlinuz"); n != nil && n.IsRegular() {
			return name
		}
	}
	return ""
}

// containerRoot returns the root for a container: it adds /etc to the merged tree, which has only
// /usr/etc.
func containerRoot(root *image.Node) *image.Node {
	out := *root
	out.Children = map[string]*image.Node{}
	for name, child := range root.Children {
		out.Children[name] = child
	}
	out.Children["etc"] = &image.Node{Meta: image.Meta{Mode: unix.S_IFLNK | 0o777}, Target: "usr/etc"}
	return &out
}

// open opens a file among the kernel's modules; it is a [kmod.Opener].
func (t *tree) open(name string) (io.Reader, error) {
	full := path.Join(modulesDir, t.version, name)
	n := t.tree.Lookup(full)
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + full + " of the image", Err: fs.ErrNotExist}
	}
	r, err := t.writer.Content(n)
	if err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", full, err)
	}
	return r, nil
}

// kernel returns the kernel of the image.
func (t *tree) kernel() kernel { return kernel{version: t.version, open: t.open} }
