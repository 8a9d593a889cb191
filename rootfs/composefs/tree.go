package composefs

import (
	"fmt"
	"slices"
	"strings"

	"installer/rootfs/xattr"
)

// File types in st_mode.
const (
	modeType    = 0o170000
	modeFifo    = 0o010000
	modeChar    = 0o020000
	modeDir     = 0o040000
	modeBlock   = 0o060000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeSocket  = 0o140000
)

// Limits of the format, in bytes.
const (
	maxName    = 255
	maxTarget  = 4095
	maxContent = 5000
)

// Inode is a file of the tree that an image is made of.
type Inode struct {
	Mode      uint32 // the whole st_mode
	UID, GID  uint32
	Links     uint32 // number of names, of anything but a directory
	Rdev      uint32 // of a character or block device
	MtimeSec  int64
	MtimeNsec uint32
	Xattrs    []xattr.Attr // no name twice

	Target  string  // of a symbolic link
	Size    uint64  // bytes of a regular file whose content is not in the image
	Content []byte  // of a regular file whose content is in the image
	Path    string  // of the backing file, relative to the folder of backing files
	Digest  []byte  // fs-verity digest of the backing file: SHA-256, SHA-512 or none
	Entries []Entry // of a directory, in byte order of their names
}

// Entry is a name in a directory.
type Entry struct {
	Name  string
	Inode *Inode
	Link  bool // a further name of an inode, whose place in the image is that of the other name
}

// isWhiteout reports whether the inode is the mark of overlayfs for a deleted file.
func (i *Inode) isWhiteout() bool { return i.Mode&modeType == modeChar && i.Rdev == 0 }

// node is an inode of the image.
type node struct {
	in     *Inode
	parent *node
	kind   uint32 // file type; that of an escaped whiteout is a regular file's
	links  uint32
	names  []name       // of a directory, in byte order, "." and ".." included
	attrs  []*attribute // in byte order of their names

	place
}

// name is an entry of a directory of the image.
type name struct {
	name string
	node *node
}

// tree is the tree of an image.
type tree struct {
	nodes   []*node // in their order in the image, the root first
	attrs   attributes
	version int
	hidden  *Inode // stands for every whiteout that hides a folder of backing files
	links   []link
}

// link is a name whose node may come later than its directory.
type link struct {
	dir *node
	at  int // in its names
	to  *Inode
}

// newTree makes the tree of an image, breadth first.
func newTree(root *Inode, v Versions) (*tree, error) {
	if root.Mode&modeType != modeDir {
		return nil, fmt.Errorf("the root has mode %#o, which is not a directory's", root.Mode)
	}
	t := &tree{version: v.Min, attrs: newAttributes(), hidden: &Inode{
		Mode: modeChar | 0o644, UID: root.UID, GID: root.GID, Links: 1, MtimeSec: root.MtimeSec, MtimeNsec: root.MtimeNsec,
	}}
	for _, x := range root.Xattrs {
		if x.Name == xattr.SELinux {
			t.hidden.Xattrs = []xattr.Attr{x}
		}
	}
	if t.version < 1 && v.Max >= 1 && hasWhiteout(root) {
		t.version = 1
	}
	t.nodes = []*node{{in: root, kind: modeDir}}
	t.nodes[0].parent = t.nodes[0]
	for n := 0; n < len(t.nodes); n++ { // the list grows on the way
		if err := t.expand(t.nodes[n]); err != nil {
			return nil, err
		}
	}
	return t, t.resolve()
}

func hasWhiteout(dir *Inode) bool {
	return slices.ContainsFunc(dir.Entries, func(e Entry) bool {
		return !e.Link && (e.Inode.isWhiteout() || hasWhiteout(e.Inode))
	})
}

// expand gives a node its attributes, and appends the nodes of its entries.
func (t *tree) expand(n *node) error {
	t.setAttributes(n)
	n.links = n.in.Links
	if n.kind != modeDir {
		return n.check()
	}
	entries := n.in.Entries
	if n.parent == n {
		entries = t.withHidden(entries)
	}
	n.links, n.names = 2, make([]name, 0, len(entries)+2)
	own := []name{{".", n}, {"..", n.parent}}
	for _, e := range entries {
		for len(own) > 0 && own[0].name < e.Name {
			n.names, own = append(n.names, own[0]), own[1:]
		}
		if err := n.checkName(e.Name); err != nil {
			return err
		}
		n.names = append(n.names, name{e.Name, t.child(n, e)})
	}
	n.names = append(n.names, own...)
	return nil
}

// child returns the node of an entry of the directory n; nil if it is that of another entry.
func (t *tree) child(n *node, e Entry) *node {
	if e.Link {
		t.links = append(t.links, link{n, len(n.names), e.Inode})
		return nil
	}
	child := &node{in: e.Inode, parent: n, kind: e.Inode.Mode & modeType}
	if e.Inode.isWhiteout() && e.Inode != t.hidden {
		child.kind = modeRegular
		t.markWhiteouts(n)
	}
	if child.kind == modeDir {
		n.links++
	}
	t.nodes = append(t.nodes, child)
	return child
}

// withHidden adds whiteouts to the entries of the root: without them the folders of backing files,
// named by the first byte of an object's name, would be seen.
func (t *tree) withHidden(entries []Entry) []Entry {
	out := make([]Entry, 0, len(entries)+256)
	for b := range 256 {
		hidden := fmt.Sprintf("%02x", b)
		for len(entries) > 0 && entries[0].Name < hidden {
			out, entries = append(out, entries[0]), entries[1:]
		}
		if len(entries) == 0 || entries[0].Name != hidden {
			out = append(out, Entry{Name: hidden, Inode: t.hidden})
		}
	}
	return append(out, entries...)
}

// resolve finds the nodes of links, and numbers all nodes.
func (t *tree) resolve() error {
	known := map[*Inode]*node{}
	for i, n := range t.nodes {
		n.ino = uint32(i)
		if err := t.attrs.settle(n); err != nil {
			return err
		}
		if len(t.links) > 0 && n.in != t.hidden {
			known[n.in] = n
		}
	}
	for _, l := range t.links {
		target := known[l.to]
		if target == nil || target.kind == modeDir || target.in.isWhiteout() {
			return fmt.Errorf("%q is a further name of a directory, of a whiteout, or of a file without a first name", l.dir.names[l.at].name)
		}
		l.dir.names[l.at].node = target
	}
	return nil
}

// checkName refuses a name that is none, and one that is not in order.
func (n *node) checkName(s string) error {
	switch {
	case s == "" || s == "." || s == ".." || len(s) > maxName || strings.ContainsAny(s, "/\x00"):
		return fmt.Errorf("%q is no name of a file", s)
	case len(n.names) > 0 && n.names[len(n.names)-1].name >= s:
		return fmt.Errorf("the name %q is out of order or repeated", s)
	}
	return nil
}

// check refuses a file that the format cannot hold.
func (n *node) check() error {
	in := n.in
	switch n.kind {
	case modeSymlink:
		if in.Target == "" || len(in.Target) > maxTarget {
			return fmt.Errorf("a symbolic link has a target of %d bytes; it must be 1 to %d", len(in.Target), maxTarget)
		}
	case modeRegular:
		if len(in.Content) > maxContent {
			return fmt.Errorf("a content of %d bytes is to be in the image; at most %d can be", len(in.Content), maxContent)
		}
		if in.Size > 0 && len(in.Content) > 0 {
			return fmt.Errorf("a file has a content in the image and a backing file")
		}
	case modeChar, modeBlock, modeFifo, modeSocket:
	default:
		return fmt.Errorf("mode %#o is no file's", in.Mode)
	}
	return nil
}
