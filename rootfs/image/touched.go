package image

import (
	"archive/tar"
	"io"
	"slices"
	"strings"
)

// heldFile is an object of the base's repository that a build has changed in a layer above it.
// Names of the system that are links to the object have the changed file.
type heldFile struct {
	node  *Node
	parts []string // of the first name, nil until it comes
}

// ofRepository takes the entries of a layer over an ostree commit with which a build has changed
// files that are hard links into the commit's repository, as ostree-ext does. Entries without a
// modification time were not changed by the build.
func (r *tarReader) ofRepository(h *tar.Header, parts []string, content io.Reader) (taken bool, err error) {
	if !r.tree.overBase || h.ModTime.Unix() <= 0 {
		return false, nil
	}
	switch inside := inRepository(parts); {
	case inside && h.Typeflag == tar.TypeReg:
		return true, r.hold(h, parts, content)
	case inside || h.Typeflag != tar.TypeLink:
		return false, nil
	}
	target, err := splitPath(h.Linkname)
	if err != nil || !inRepository(target) {
		return false, nil // an error comes with the link
	}
	if r.tree.drops(parts) {
		return true, nil
	}
	held := r.tree.held[strings.Join(target, "/")]
	switch {
	case held == nil:
		r.tree.dropped[target[0]]++
		return true, nil
	case held.parts == nil:
		held.parts = slices.Clone(parts)
		err = r.tree.addNode(parts, held.node)
	default:
		err = r.tree.addLink(parts, held.parts, held.node.Meta)
	}
	if err != nil {
		return true, &entryError{h.Name, err}
	}
	return true, nil
}

func inRepository(parts []string) bool {
	return len(parts) > 3 && strings.HasPrefix(strings.Join(parts, "/"), repoPrefix)
}

// hold takes a changed object out of the tree.
func (r *tarReader) hold(h *tar.Header, parts []string, content io.Reader) error {
	e, err := r.describe(h)
	if err == nil {
		err = r.tree.budget.spend(e.cost())
	}
	if err != nil {
		return &entryError{h.Name, err}
	}
	node := &Node{Meta: e.Meta, Size: e.size}
	if r.tree.held == nil {
		r.tree.held = map[string]*heldFile{}
	}
	r.tree.held[strings.Join(parts, "/")] = &heldFile{node: node}
	r.record.of(node, h)
	return r.out.store(node, h.Name, content)
}

// addNode gives a file a name.
func (b *builder) addNode(parts []string, node *Node) error {
	if _, err := b.add(parts, &entry{Meta: node.Meta}); err != nil {
		return err
	}
	parent, err := b.parent(parts, node.Meta)
	if err == nil {
		parent.Children[strings.Clone(parts[len(parts)-1])] = node
	}
	return err
}
