package mounts

import (
	"fmt"
	"slices"
	"strings"
)

// LeafFirst returns the mount with the given id and all that stand on it, each one after everything
// that stands on it. Stacked mounts come top first.
func LeafFirst(list []Mount, id int) ([]Mount, error) {
	children := map[int][]Mount{}
	root := -1
	for i, m := range list {
		if m.ID == id {
			root = i
		}
		if m.ID != m.Parent { // the root of a namespace may be its own parent
			children[m.Parent] = append(children[m.Parent], m)
		}
	}
	if root < 0 {
		return nil, fmt.Errorf("ordering the mounts below mount %d: no such mount in this namespace", id)
	}
	var order []Mount
	seen := map[int]bool{}
	var visit func(Mount)
	visit = func(m Mount) {
		if seen[m.ID] {
			return
		}
		seen[m.ID] = true
		for _, child := range slices.Backward(children[m.ID]) {
			visit(child)
		}
		order = append(order, m)
	}
	visit(list[root])
	return order, nil
}

// Find returns the mount with an id.
func Find(list []Mount, id int) (Mount, bool) {
	i := slices.IndexFunc(list, func(m Mount) bool { return m.ID == id })
	if i < 0 {
		return Mount{}, false
	}
	return list[i], true
}

// Covering returns the mount that a path most likely lies on, judged by the longest mount point
// that is a prefix of it; the last one listed wins.
func Covering(list []Mount, path string) (Mount, bool) {
	var best Mount
	found := false
	for _, m := range list {
		if Inside(path, m.Point) && (!found || len(m.Point) >= len(best.Point)) {
			best, found = m, true
		}
	}
	return best, found
}

// Inside reports whether path is dir or lies below it, name by name.
func Inside(path, dir string) bool {
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}
