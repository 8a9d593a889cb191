package image

import (
	"errors"
	"fmt"
	"strings"
)

// entry is one object of a layer, before it has its place in the tree.
type entry struct {
	Meta   // with the file type in Mode
	path   string
	target string // of a symbolic link
	size   int64
}

// pendingLink is a hard link whose target is looked up when the layer is complete.
type pendingLink struct {
	path   string
	parent *Node
	name   string
	holder *Node // stands in the tree for the link until then
}

// builder makes one layer's tree from its entries, in their order.
type builder struct {
	root    *Node
	links   []pendingLink
	plnk    map[string]*Node // files of AUFS that hard links lead to
	dropped map[string]int
	ignored Ignored

	// overBase is set for a layer that lies over an ostree commit. Its tree becomes that which
	// libostree makes of the layer.
	overBase bool
	held     map[string]*heldFile // by the path of the object

	label    Labeller // nil: files get no labels yet
	budget   *budget
	entries  int64
	implicit int64 // directories without an entry so far
}

func newBuilder(b *budget) *builder {
	return &builder{root: newDir(), plnk: map[string]*Node{}, dropped: map[string]int{}, budget: b}
}

// newDir is a directory that nothing describes: 0755, owned by root.
func newDir() *Node {
	return &Node{Meta: Meta{Mode: modeDir | 0o755}, Children: map[string]*Node{}}
}

// implied makes a directory that a layer has without an entry for it.
func (b *builder) implied(parent *Node, name string) (*Node, error) {
	b.implicit++
	if most := freeImplied + impliedEach*b.entries; b.implicit > most {
		return nil, fmt.Errorf("the layer implies more than %d directories by its first %d entries", most, b.entries)
	}
	if err := b.budget.spend(dirCost + len(name)); err != nil {
		return nil, err
	}
	dir := newDir()
	parent.Children[strings.Clone(name)] = dir
	return dir, nil
}

// drops reports whether the path is one that is left out, and counts it if so.
func (b *builder) drops(parts []string) bool {
	switch {
	case isAUFS(parts):
		b.dropped[aufsPrefix]++
	case isDropped(parts):
		b.dropped[strings.Clone(parts[0])]++
	default:
		return false
	}
	return true
}

// add puts an entry in its place and returns its node.
func (b *builder) add(parts []string, e *entry) (*Node, error) {
	b.entries++
	if err := b.budget.spend(e.cost()); err != nil {
		return nil, err
	}
	isDir := e.Mode&modeType == modeDir
	if len(parts) == 0 {
		if !isDir {
			return nil, errors.New("the root of the layer is not a directory")
		}
		b.root.Meta, b.root.Explicit = e.Meta, true
		return b.root, nil
	}
	name := parts[len(parts)-1]
	if err := checkWhiteoutEntry(name, e.Mode); err != nil {
		return nil, err
	}
	parent, err := b.parent(parts, e.Meta)
	if err != nil {
		return nil, err
	}
	if isDir {
		return b.addDir(parent, name, e), nil
	}
	node := &Node{Meta: e.Meta, Target: e.target, Size: e.size}
	if b.label != nil && !isHolder(node) {
		node.Xattrs = labelled(node.Xattrs, b.label(labelPath(parts), node.Mode))
	}
	// The name is a part of the whole path's string: a copy lets that go.
	parent.Children[strings.Clone(name)] = node
	return node, nil
}

// labelPath returns the path that an entry has in the merged tree.
func labelPath(parts []string) string {
	if parts[0] == "etc" {
		return "/usr/" + strings.Join(parts, "/")
	}
	return "/" + strings.Join(parts, "/")
}

func (b *builder) addDir(parent *Node, name string, e *entry) *Node {
	node := parent.Children[name]
	if node == nil || node.Children == nil {
		node = newDir()
		parent.Children[strings.Clone(name)] = node
	}
	node.Meta, node.Explicit = e.Meta, true
	return node
}

// checkWhiteoutEntry refuses directories and symbolic links that bear a whiteout's name.
func checkWhiteoutEntry(name string, mode uint32) error {
	if !strings.HasPrefix(name, whiteoutPrefix) {
		return nil
	}
	if t := mode & modeType; t != modeRegular && t != 0 {
		return errors.New("only a regular file can be a whiteout")
	}
	return checkWhiteoutName(name)
}

// parent finds the directory that holds the last part, and makes the missing ones for an entry of
// that owner.
func (b *builder) parent(parts []string, owner Meta) (*Node, error) {
	before := b.implicit
	dir, err := b.makeParents(parts)
	if err == nil && b.overBase && b.implicit > before {
		b.disown(parts, owner)
	}
	return dir, err
}

// disown gives the directories above an entry to its owner, as libostree does with all of them where
// one is missing.
func (b *builder) disown(parts []string, owner Meta) {
	dir := b.root
	for _, name := range parts {
		dir.Meta = Meta{Mode: modeDir | 0o755, UID: owner.UID, GID: owner.GID}
		dir = dir.Children[name]
	}
}

func (b *builder) makeParents(parts []string) (*Node, error) {
	dir := b.root
	for i, name := range parts[:len(parts)-1] {
		next := dir.Children[name]
		if next == nil {
			if strings.HasPrefix(name, whiteoutPrefix) {
				return nil, fmt.Errorf("%q bears the name of a whiteout, but is a directory", name)
			}
			var err error
			if next, err = b.implied(dir, name); err != nil {
				return nil, err
			}
		}
		if next.Children == nil {
			return nil, fmt.Errorf("%q is not a directory in the same layer", strings.Join(parts[:i+1], "/"))
		}
		dir = next
	}
	return dir, nil
}

// addLink notes a hard link. A link to itself, which tar writes for a file that it was given twice,
// changes nothing.
func (b *builder) addLink(parts, target []string, owner Meta) error {
	if len(parts) == 0 || len(target) == 0 {
		return errors.New("a hard link from or to the root directory")
	}
	path, targetPath := strings.Join(parts, "/"), strings.Join(target, "/")
	if path == targetPath && b.root.Lookup(path) != nil {
		return nil
	}
	holder, err := b.add(parts, &entry{target: targetPath, Meta: Meta{UID: owner.UID, GID: owner.GID}})
	if err != nil {
		return err
	}
	name := path[len(path)-len(parts[len(parts)-1]):]
	parent, err := b.parent(parts, owner)
	if err != nil {
		return err
	}
	b.links = append(b.links, pendingLink{path: path, parent: parent, name: name, holder: holder})
	return nil
}

// linkError names the hard link that has no target.
type linkError struct {
	path string
	err  error
}

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// finish gives every hard link the final node of its target.
func (b *builder) finish() (*Node, error) {
	resolved := make(map[*Node]*Node, len(b.links))
	for _, l := range b.links {
		if b.root.Lookup(l.path) != l.holder {
			continue // replaced by a later entry
		}
		if err := b.resolve(l.holder, resolved); err != nil {
			return nil, &linkError{path: l.path, err: err}
		}
	}
	// Only now: lookups of links to links pass by the holders.
	for _, l := range b.links {
		if node := resolved[l.holder]; node != nil {
			l.parent.Children[l.name] = node
		}
	}
	b.links = nil
	return b.root, nil
}

// isHolder reports whether n is the placeholder of a hard link; only those have mode 0.
func isHolder(n *Node) bool { return n.Mode == 0 }

// target finds the node that a hard link leads to.
func (b *builder) target(path string) *Node {
	if name, ok := strings.CutPrefix(path, plnkDir+"/"); ok {
		return b.plnk[name]
	}
	return b.root.Lookup(path)
}

// resolve follows a holder, over other links, to a file or symbolic link.
func (b *builder) resolve(holder *Node, resolved map[*Node]*Node) error {
	var chain []*Node
	node := holder
	for isHolder(node) && resolved[node] == nil {
		if node.Explicit {
			return errors.New("hard links that lead in a circle")
		}
		node.Explicit = true // on the chain
		chain = append(chain, node)
		next := b.target(node.Target)
		if next == nil {
			return fmt.Errorf("hard link to %s, which is not in the layer", quoteShort(node.Target))
		}
		node = next
	}
	if final := resolved[node]; final != nil {
		node = final
	}
	if node.IsDir() {
		return errors.New("hard link to a directory")
	}
	for _, n := range chain {
		resolved[n] = node
	}
	return nil
}
