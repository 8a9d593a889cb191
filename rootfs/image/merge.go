package image

import (
	"errors"
	"path"
	"strings"
)

// assemble makes a Tree of layers as they were read, with /etc in its own place.
func assemble(ref Ref, layers []*Node, dropped map[string]int, ignored Ignored) (*Tree, error) {
	merged := mergeLayers(layers)
	if err := checkEtc(merged); err != nil {
		return nil, &SourceError{Ref: ref.String(), Entry: "etc", Err: err}
	}
	t := &Tree{Root: relocateEtc(merged), Dropped: dropped, Ignored: ignored}
	removeStubs(t.Root)
	moved := map[*Node]*Node{}
	for _, l := range layers {
		if moved[l] == nil {
			moved[l] = relocateEtc(l)
		}
		t.Layers = append(t.Layers, moved[l])
	}
	return t, nil
}

// merger lays layers over each other. It never changes a layer's node: a directory is copied before
// its first change, and changed in place after that.
type merger struct {
	own map[*Node]bool
}

// mergeLayers returns a root that no layer has; nodes below it may be shared.
func mergeLayers(layers []*Node) *Node {
	m := &merger{own: map[*Node]bool{}}
	root := m.copyDir(newDir())
	for _, l := range layers {
		m.merge(root, l)
	}
	return root
}

// copyDir copies a directory, but not its entries.
func (m *merger) copyDir(n *Node) *Node {
	c := *n
	c.Children = make(map[string]*Node, len(n.Children))
	for name, child := range n.Children {
		c.Children[name] = child
	}
	m.own[&c] = true
	return &c
}

// merge lays a layer's directory over dst, which is the merger's own. Whiteouts come first: they
// concern lower layers, not this one.
func (m *merger) merge(dst, layer *Node) {
	if layer.Explicit {
		dst.Meta, dst.Explicit = layer.Meta, true
	}
	if layer.Children[opaqueMarker] != nil {
		clear(dst.Children)
	}
	for name := range layer.Children {
		if target, is := whiteoutTarget(name); is {
			delete(dst.Children, target)
		}
	}
	for name, child := range layer.Children {
		if strings.HasPrefix(name, whiteoutPrefix) {
			continue
		}
		if child.Children == nil {
			dst.Children[name] = child
			continue
		}
		m.mergeDir(dst, name, child)
	}
}

func (m *merger) mergeDir(dst *Node, name string, child *Node) {
	lower := dst.Children[name]
	if lower == nil || lower.Children == nil {
		if made := m.clean(child); made != nil {
			dst.Children[name] = made
		}
		return
	}
	if !m.own[lower] {
		lower = m.copyDir(lower)
		dst.Children[name] = lower
	}
	m.merge(lower, child)
}

// clean returns a directory without the whiteouts in it and below, for there is nothing under it
// that they could remove. It copies only directories that have some. A directory that has no entry
// of its own, and held nothing but whiteouts, is nil: they do not bring back a directory that a
// layer between removed.
func (m *merger) clean(dir *Node) *Node {
	out := dir
	for name, child := range dir.Children {
		kept := child
		if strings.HasPrefix(name, whiteoutPrefix) {
			kept = nil
		} else if child.Children != nil {
			kept = m.clean(child)
		}
		if kept == child {
			continue
		}
		if out == dir {
			out = m.copyDir(dir)
		}
		if kept == nil {
			delete(out.Children, name)
		} else {
			out.Children[name] = kept
		}
	}
	if out != dir && len(out.Children) == 0 && !dir.Explicit {
		return nil
	}
	return out
}

// checkEtc refuses an image with two configurations.
func checkEtc(root *Node) error {
	etc, usrEtc := root.Children["etc"], root.Lookup("usr/etc")
	if etc == nil || isLinkToUsrEtc(etc) {
		return nil
	}
	if etc.Children == nil {
		return errors.New("/etc is not a directory")
	}
	if usr := root.Children["usr"]; usr != nil && usr.Children == nil {
		return errors.New("/usr is not a directory")
	}
	if usrEtc != nil && usrEtc.Children == nil {
		return errors.New("/usr/etc is not a directory")
	}
	if usrEtc != nil && len(etc.Children) > 0 && len(usrEtc.Children) > 0 {
		return errors.New("the image has files both in /etc and in /usr/etc; keep one of them (a deployment makes /etc from /usr/etc)")
	}
	return nil
}

// isLinkToUsrEtc: such a link has no effect on a deployment.
func isLinkToUsrEtc(n *Node) bool {
	return n.IsSymlink() && path.Join("/", n.Target) == "/usr/etc"
}

// relocateEtc returns a root with etc, and a whiteout of it, moved into usr. Where a layer has
// both, the entries of etc go over those of usr/etc.
func relocateEtc(root *Node) *Node {
	etc, gone := root.Children["etc"], root.Children[whiteoutPrefix+"etc"]
	if etc == nil && gone == nil {
		return root
	}
	m := &merger{own: map[*Node]bool{}}
	root = m.copyDir(root)
	delete(root.Children, "etc")
	delete(root.Children, whiteoutPrefix+"etc")
	usr := root.Children["usr"]
	switch {
	case usr == nil:
		usr = newDir()
	case usr.Children == nil:
		return root // checkEtc lets this pass only where a later layer hides it
	default:
		usr = m.copyDir(usr)
	}
	root.Children["usr"] = usr
	if gone != nil {
		usr.Children[whiteoutPrefix+"etc"] = gone
	}
	moveEtc(m, usr, etc)
	return root
}

func moveEtc(m *merger, usr, etc *Node) {
	old := usr.Children["etc"]
	switch {
	case etc == nil || isLinkToUsrEtc(etc):
	case old == nil || old.Children == nil || len(old.Children) == 0 || etc.Children == nil:
		usr.Children["etc"] = etc
	default:
		both := m.copyDir(old)
		if len(etc.Children) > 0 && etc.Explicit {
			both.Meta, both.Explicit = etc.Meta, true
		}
		m.overlay(both, etc)
		usr.Children["etc"] = both
	}
}

// overlay puts all of a directory over another, whiteouts as they are.
func (m *merger) overlay(dst, src *Node) {
	for name, child := range src.Children {
		lower := dst.Children[name]
		if child.Children == nil || lower == nil || lower.Children == nil {
			dst.Children[name] = child
			continue
		}
		lower = m.copyDir(lower)
		if child.Explicit {
			lower.Meta, lower.Explicit = child.Meta, true
		}
		m.overlay(lower, child)
		dst.Children[name] = lower
	}
}

// removeStubs removes the empty files that podman leaves where it mounts its own while building;
// the root must not be shared with a layer up to usr/etc.
func removeStubs(root *Node) {
	usr := root.Children["usr"]
	if usr == nil || usr.Children["etc"] == nil {
		return
	}
	m := &merger{own: map[*Node]bool{}}
	for _, name := range []string{"hostname", "resolv.conf"} {
		stub := root.Lookup("usr/etc/" + name)
		if stub == nil || !stub.IsRegular() || stub.Size != 0 {
			continue
		}
		usr = m.copyDir(usr)
		etc := m.copyDir(usr.Children["etc"])
		delete(etc.Children, name)
		usr.Children["etc"] = etc
		root.Children["usr"] = usr
	}
}
