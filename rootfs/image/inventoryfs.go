package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// ErrNotKept is the cause when a file is read whose content the scan did not keep.
var ErrNotKept = errors.New("the content was not kept by the scan")

// maxLinks is how many symbolic links a path may lead over, as in path_resolution(7).
const maxLinks = 40

// InventoryFS is a tree of an inventory as a file system. Symbolic links are followed as if the tree were
// the root, and /etc is where the image has it. Contents can be read as far as the scan kept them.
type InventoryFS struct {
	inv  *Inventory
	root *Node
}

// FS returns the merged tree as a file system: an [fs.StatFS], [fs.ReadDirFS], [fs.ReadFileFS] and
// [fs.ReadLinkFS].
func (inv *Inventory) FS() InventoryFS { return InventoryFS{inv, inv.Tree.Root} }

// BaseFS returns the tree of the ostree commit as a file system, without the files of the layers
// over it. The image has a commit.
func (inv *Inventory) BaseFS() InventoryFS { return InventoryFS{inv, inv.Tree.Layers[0]} }

// resolve finds a path; with follow also the target of a link. It returns the path that the node
// has in the tree.
func (f InventoryFS) resolve(name string, follow bool) (at string, n *Node, err error) {
	todo := strings.Split(name, "/")
	n = f.root
	var nodes []*Node // above n
	var names []string
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(nodes) > 0 {
				n, nodes, names = nodes[len(nodes)-1], nodes[:len(nodes)-1], names[:len(names)-1]
			}
			continue
		}
		if part == "etc" && len(nodes) == 0 && hasNoEtc(n) {
			todo = append([]string{"usr", "etc"}, todo...)
			continue
		}
		next := n.Children[part]
		if next == nil {
			return "", nil, fs.ErrNotExist
		}
		if !next.IsSymlink() || len(todo) == 0 && !follow {
			nodes, names, n = append(nodes, n), append(names, part), next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, errors.New("too many levels of symbolic links")
		}
		if strings.HasPrefix(next.Target, "/") {
			n, nodes, names = f.root, nil, nil
		}
		todo = append(strings.Split(next.Target, "/"), todo...)
	}
	return strings.Join(names, "/"), n, nil
}

// hasNoEtc reports whether the root of a tree leaves /etc to its deployment: an ostree commit may
// have it as an empty directory.
func hasNoEtc(root *Node) bool {
	etc := root.Children["etc"]
	return etc == nil || etc.IsDir() && len(etc.Children) == 0
}

func (f InventoryFS) find(op, name string, follow bool) (*Node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	_, n, err := f.resolve(name, follow)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// Open implements [fs.FS].
func (f InventoryFS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := nodeInfo{n, path.Base(name)}
	if n.IsDir() {
		return &openDir{nodeInfo: info, left: entries(n)}, nil
	}
	data, kept := f.inv.kept[n]
	return &openFile{info, bytes.NewReader(data), kept || n.Size == 0}, nil
}

// Stat implements [fs.StatFS].
func (f InventoryFS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return nodeInfo{n, path.Base(name)}, nil
}

// Lstat implements [fs.ReadLinkFS].
func (f InventoryFS) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return nodeInfo{n, path.Base(name)}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f InventoryFS) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err == nil && !n.IsSymlink() {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return n.Target, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f InventoryFS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err == nil && !n.IsDir() {
		err = &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	if err != nil {
		return nil, err
	}
	return entries(n), nil
}

// ReadFile implements [fs.ReadFileFS].
func (f InventoryFS) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

func entries(n *Node) []fs.DirEntry {
	list := make([]fs.DirEntry, 0, len(n.Children))
	for _, name := range n.Names() {
		list = append(list, fs.FileInfoToDirEntry(nodeInfo{n.Children[name], name}))
	}
	return list
}

// nodeInfo describes a node.
type nodeInfo struct {
	node *Node
	name string
}

func (i nodeInfo) Name() string       { return i.name }
func (i nodeInfo) Size() int64        { return i.node.Size }
func (i nodeInfo) IsDir() bool        { return i.node.IsDir() }
func (i nodeInfo) ModTime() time.Time { return time.Time{} } // a tree keeps none
func (i nodeInfo) Sys() any           { return i.node }

func (i nodeInfo) Mode() fs.FileMode {
	mode := fs.FileMode(i.node.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.node.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch {
	case i.node.IsDir():
		mode |= fs.ModeDir
	case i.node.IsSymlink():
		mode |= fs.ModeSymlink
	}
	return mode
}

// openFile is a regular file that was opened.
type openFile struct {
	nodeInfo
	data *bytes.Reader
	kept bool
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.nodeInfo, nil }
func (f *openFile) Close() error               { return nil }

func (f *openFile) Read(b []byte) (int, error) {
	if !f.kept {
		return 0, ErrNotKept
	}
	return f.data.Read(b)
}

// openDir is a directory that was opened.
type openDir struct {
	nodeInfo
	left []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.nodeInfo, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// ReadDir implements [fs.ReadDirFile].
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.left
		d.left = nil
		return list, nil
	}
	if len(d.left) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.left))
	list := d.left[:n]
	d.left = d.left[n:]
	return list, nil
}
