package image

import (
	"context"
	"encoding/hex"
	"io"
	"sort"
	"strings"
)

// Bits of st_mode, as in <sys/stat.h>; the same on every Linux architecture.
const (
	modeType     = 0o170000
	modeDir      = 0o040000
	modeRegular  = 0o100000
	modeSymlink  = 0o120000
	modePermMask = 0o7777
)

// Meta holds the metadata of a file, directory or symbolic link.
type Meta struct {
	Mode   uint32 // the whole st_mode, file type included
	UID    uint32
	GID    uint32
	Xattrs []Xattr // as a file system shows them (package xattr); security.selinux is of an ostree commit, or of Relabel
}

// ContentID names stored content, metadata included. The sink chooses it.
type ContentID [32]byte

// String is the name in hex.
func (c ContentID) String() string { return hex.EncodeToString(c[:]) }

// Sink stores content as it streams by. Store is called concurrently. For a symbolic link target is
// not empty, size is 0 and content is nil; for a regular file content yields exactly size bytes or
// fails. content must not be used after Store returned.
type Sink interface {
	Store(ctx context.Context, m Meta, target string, size int64, content io.Reader) (ContentID, error)
}

// Node is a directory, a regular file or a symbolic link. Hard links of one layer share one Node.
// Nodes are not changed after an import has returned them, and subtrees are shared between a tree
// and its layers.
type Node struct {
	Meta
	Target   string           // of a symbolic link
	Size     int64            // bytes of a regular file
	Content  ContentID        // of a regular file or symbolic link
	Children map[string]*Node // of a directory, and then never nil
	Explicit bool             // a directory that had an entry of its own
}

// IsDir reports whether the node is a directory.
func (n *Node) IsDir() bool { return n.Mode&modeType == modeDir }

// IsRegular reports whether the node is a regular file.
func (n *Node) IsRegular() bool { return n.Mode&modeType == modeRegular }

// IsSymlink reports whether the node is a symbolic link.
func (n *Node) IsSymlink() bool { return n.Mode&modeType == modeSymlink }

// Names returns the names in the directory in byte order.
func (n *Node) Names() []string {
	names := make([]string, 0, len(n.Children))
	for name := range n.Children {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Lookup finds a path below the node, without following symbolic links. It returns nil if there is
// none; leading and repeated slashes do not matter.
func (n *Node) Lookup(path string) *Node {
	for _, part := range strings.Split(path, "/") {
		if part == "" || part == "." {
			continue
		}
		if n = n.Children[part]; n == nil {
			return nil
		}
	}
	return n
}

// each calls fn for the node and all below it, in no order.
func (n *Node) each(fn func(*Node)) {
	fn(n)
	for _, child := range n.Children {
		child.each(fn)
	}
}

// Walk calls fn for the node (with an empty path) and all below it, directories before their
// contents, names in byte order. It stops at fn's first error.
func (n *Node) Walk(fn func(path string, n *Node) error) error {
	return n.walk("", fn)
}

func (n *Node) walk(path string, fn func(string, *Node) error) error {
	if err := fn(path, n); err != nil {
		return err
	}
	prefix := path
	if prefix != "" {
		prefix += "/"
	}
	for _, name := range n.Names() {
		if err := n.Children[name].walk(prefix+name, fn); err != nil {
			return err
		}
	}
	return nil
}

// Tree is an imported image.
type Tree struct {
	Root *Node // all layers merged

	// Layers has each layer's own tree, lowest first. Whiteouts are in it as the files they are in
	// the layer, ".wh." names and all. Layers that occur twice in the image share one tree.
	Layers []*Node

	// Base is the commit of an ostree-native image, nil for another image. The first layer's tree is
	// the commit's. Those of the further layers up to Base.Layers are one directory each, of the
	// file objects that the layer holds by their checksums. Nodes of these layers have the extended
	// attributes that their objects have, SELinux labels too, and the objects' checksums as Content.
	Base *Base

	// Twins have no Content when an import returns them: their objects are made of others.
	Twins []Twin

	// Dropped counts the entries left out, by top-level name.
	Dropped map[string]int
	// Ignored counts the extended attributes left out.
	Ignored Ignored
}

// Lookup finds a path in the merged tree; see [Node.Lookup].
func (t *Tree) Lookup(path string) *Node { return t.Root.Lookup(path) }

// Walk visits the merged tree; see [Node.Walk].
func (t *Tree) Walk(fn func(path string, n *Node) error) error { return t.Root.Walk(fn) }

// Stats counts the nodes of the merged tree; the root directory counts too. A file with several
// hard links counts once for each, also in bytes.
func (t *Tree) Stats() (files, dirs, symlinks int, bytes int64) {
	t.Root.each(func(n *Node) {
		switch {
		case n.IsDir():
			dirs++
		case n.IsSymlink():
			symlinks++
		default:
			files++
			bytes += n.Size
		}
	})
	return files, dirs, symlinks, bytes
}
