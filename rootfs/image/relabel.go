package image

import (
	"slices"
	"strings"

	"installer/rootfs/xattr"
)

// Labeller returns the SELinux label of an absolute path of the merged tree whose file has this
// mode. The label "" is none.
type Labeller func(path string, mode uint32) string

// Twin is a file or symbolic link with the content of another one, whose object bears another
// label: one of several names of a file, or a file of an ostree commit by another policy.
type Twin struct{ Of, Node *Node }

// labelled returns attributes with a label in place of the one that is there.
func labelled(attrs []Xattr, label string) []Xattr {
	out := make([]Xattr, 0, len(attrs)+1)
	for _, x := range attrs {
		if x.Name != xattr.SELinux {
			out = append(out, x)
		}
	}
	if label != "" {
		out = append(out, Xattr{Name: xattr.SELinux, Value: append([]byte(label), 0)})
	}
	slices.SortFunc(out, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Label returns the SELinux label of the node, "" for none.
func (n *Node) Label() string {
	for _, x := range n.Xattrs {
		if x.Name == xattr.SELinux {
			return strings.TrimSuffix(string(x.Value), "\x00")
		}
	}
	return ""
}

// Relabel gives every node of the merged tree and of the plain layers the label of its path. As an
// updater does, it leaves the layers of an ostree commit as they are, and the whole tree where
// there are no others. Files that become objects of their own are appended to Twins.
//
// An updater labels a layer over an ostree commit twice: by the policy of the commit when it reads
// the layer, and by that of the merged tree. So before, which may be nil, labels those nodes for
// which label has none.
func (t *Tree) Relabel(label, before Labeller) {
	first := 0
	if before == nil {
		before = func(string, uint32) string { return "" }
	}
	r := &relabeller{label: label, before: before, plain: t.Base == nil, dirs: map[*Node]*Node{}, made: map[twinKey]*Node{}, bare: map[*Node]bool{}, fixed: map[*Node]bool{}, shared: map[string][]Xattr{}}
	if t.Base != nil {
		if first = t.Base.Layers; first == len(t.Layers) {
			return
		}
		r.keep(t.Layers[0])
	}
	for i := first; i < len(t.Layers); i++ {
		t.Layers[i] = r.dir("", t.Layers[i])
	}
	t.Root = r.dir("", t.Root)
	t.Twins = append(t.Twins, r.twins...)
}

// twinKey names a file as it must be.
type twinKey struct {
	of    *Node
	label string
}

// relabeller labels the nodes of one image.
type relabeller struct {
	label  Labeller
	before Labeller           // of nodes that have no label
	plain  bool               // no layer holds an ostree commit
	fixed  map[*Node]bool     // directories of an ostree commit
	dirs   map[*Node]*Node    // directories that are done; layers share them with the merged tree
	made   map[twinKey]*Node  // twins
	bare   map[*Node]bool     // files that a path leaves without label
	shared map[string][]Xattr // attributes of files that have a label alone
	twins  []Twin
}

// keep has the directories below n left as they are.
func (r *relabeller) keep(n *Node) {
	r.fixed[n] = true
	for _, child := range n.Children {
		if child.IsDir() {
			r.keep(child)
		}
	}
}

// dir labels a directory and all below it. It returns a copy of one that must stay as it is.
func (r *relabeller) dir(path string, n *Node) *Node {
	if done := r.dirs[n]; done != nil {
		return done
	}
	out := n
	change := func() {
		if out == n && r.fixed[n] {
			out = (&merger{own: map[*Node]bool{}}).copyDir(n)
		}
	}
	if label := r.of(max(path, "/"), n); label != n.Label() && (label != "" || r.plain) {
		change()
		out.Xattrs = r.attributes(n, label)
	}
	for _, name := range n.Names() { // in order: which of several names keeps the node is not left to chance
		child := n.Children[name]
		var made *Node
		if at := path + "/" + name; child.IsDir() {
			made = r.dir(at, child)
		} else {
			made = r.file(at, child)
		}
		if made != child {
			change()
			out.Children[name] = made
		}
	}
	r.dirs[n] = out
	return out
}

// of returns the label that a node gets, "" where there is none for it.
func (r *relabeller) of(path string, n *Node) string {
	label := r.label(path, n.Mode)
	if label == "" && n.Label() == "" {
		return r.before(path, n.Mode)
	}
	return label
}

// file labels a file or symbolic link. It returns a twin of one that has another label by another
// name, or in an ostree commit.
func (r *relabeller) file(path string, n *Node) *Node {
	label, has := r.of(path, n), n.Label()
	switch {
	case label == has:
		if label == "" {
			r.bare[n] = true
		}
		return n
	case label == "" && !r.plain:
		return n
	case has == "" && n.Content == ContentID{} && !r.bare[n]:
		n.Xattrs = r.attributes(n, label)
		return n
	}
	key := twinKey{n, label}
	if made := r.made[key]; made != nil {
		return made
	}
	twin := *n
	twin.Content, twin.Xattrs = ContentID{}, r.attributes(n, label)
	r.made[key] = &twin
	r.twins = append(r.twins, Twin{Of: n, Node: &twin})
	return &twin
}

// attributes returns the attributes of a node with a label. Most files have none but that.
func (r *relabeller) attributes(n *Node, label string) []Xattr {
	if len(n.Xattrs) > 1 || len(n.Xattrs) == 1 && n.Xattrs[0].Name != xattr.SELinux {
		return labelled(n.Xattrs, label)
	}
	if r.shared[label] == nil {
		r.shared[label] = labelled(nil, label)
	}
	return r.shared[label]
}

// Labels counts the nodes of the merged tree by their labels; "" stands for those without. The name
// is that of the first of those, in byte order, else "".
func (t *Tree) Labels() (counts map[string]int, unlabelled string) {
	counts = map[string]int{}
	_ = t.Walk(func(path string, n *Node) error { // no function here fails
		label := n.Label()
		if label == "" && counts[""] == 0 {
			unlabelled = "/" + path
		}
		counts[label]++
		return nil
	})
	return counts, unlabelled
}
