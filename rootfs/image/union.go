package image

import "errors"

// assemble makes the Tree of an image whose lower layers hold a commit. Layers of plain files lie
// over the commit's tree.
func (b *baseReader) assemble(layers []*Node, dropped map[string]int, ignored Ignored) (*Tree, error) {
	if err := b.missing(); err != nil {
		return nil, err
	}
	if etc := b.root.Children["etc"]; etc != nil && len(etc.Children) > 0 {
		return nil, &entryError{"etc", errors.New("the commit has files in /etc, from which no deployment can be made; they belong into /usr/etc")}
	}
	anyPath, err := b.takesAnyPath()
	if err != nil {
		return nil, err
	}
	base := b.out
	t := &Tree{Layers: layers, Dropped: dropped, Ignored: ignored, Base: &base}
	m := &merger{own: map[*Node]bool{}}
	t.Root = m.copyDir(b.root)
	for i := base.Layers; i < len(layers); i++ {
		if !anyPath {
			layers[i] = b.systemOnly(m, layers[i], dropped)
		}
		if isOpaque(layers[i]) {
			t.Root = m.emptyDir(layers[i])
		}
		m.union(t.Root, layers[i])
	}
	if etc := t.Lookup("usr/etc"); etc != nil && !etc.IsDir() {
		return nil, &entryError{"etc", errors.New("/etc is not a directory")}
	}
	removeStubs(t.Root)
	return t, nil
}

// systemOnly returns a layer without the entries that no updater takes where the root is none that
// shows them. Files that have no other name in the layer are added to leftOut.
func (b *baseReader) systemOnly(m *merger, layer *Node, dropped map[string]int) *Node {
	out := layer
	for name, child := range layer.Children {
		if name == "usr" || name == "var" || isVolatile(name) {
			continue
		}
		if out == layer {
			out = m.copyDir(layer)
		}
		delete(out.Children, name)
		dropped[name]++
		child.each(func(n *Node) { b.leftOut[n] = true })
	}
	if out != layer {
		out.each(func(n *Node) { delete(b.leftOut, n) })
	}
	return out
}

// union lays a layer's directory over dst, which is the merger's own, as libostree's checkout does:
// the updater of an image over an ostree commit makes the same tree. Unlike in merge, a directory
// that dst has keeps its metadata, and a whiteout removes a file of its own layer whose name comes
// before the whiteout's in byte order.
func (m *merger) union(dst, layer *Node) {
	names := layer.Names()
	for _, name := range names {
		child := layer.Children[name]
		if child.IsDir() {
			continue
		}
		if target, is := whiteoutTarget(name); is {
			delete(dst.Children, target)
		} else {
			dst.Children[name] = child
		}
	}
	for _, name := range names {
		child := layer.Children[name]
		if !child.IsDir() {
			continue
		}
		lower := dst.Children[name]
		switch {
		case lower == nil || !lower.IsDir() || isOpaque(child):
			lower = m.emptyDir(child)
		case !m.own[lower]:
			lower = m.copyDir(lower)
		}
		dst.Children[name] = lower
		m.union(lower, child)
	}
}

// isOpaque reports whether a directory of a layer hides those of lower layers.
func isOpaque(dir *Node) bool { return dir.Children[opaqueMarker] != nil }

// emptyDir returns a directory with the metadata of another.
func (m *merger) emptyDir(like *Node) *Node {
	n := &Node{Meta: like.Meta, Explicit: like.Explicit, Children: map[string]*Node{}}
	m.own[n] = true
	return n
}
