package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"installer/disk/block"

	"installer/disk/stack"
)

// stacked finds the devices on top of the subject, those on top of these, and the uses of each:
// first the mounts and swap spaces, which must go first, then the layers from the top down.
func (h host) stacked(s subject) ([]Use, error) {
	uses, err := h.allAbove(s, map[string]bool{})
	return oncePerRemedy(uses), err
}

func (h host) allAbove(s subject, visited map[string]bool) ([]Use, error) {
	var uses []Use
	for _, n := range s.nodes {
		found, err := h.above(n, visited)
		if err != nil {
			return nil, err
		}
		uses = append(uses, found...)
	}
	return uses, nil
}

// above is allAbove for one device.
func (h host) above(n node, visited map[string]bool) ([]Use, error) {
	entries, err := os.ReadDir(filepath.Join(n.dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var uses []Use
	for _, e := range entries {
		dir, err := filepath.EvalSymlinks(filepath.Join(n.dir, "holders", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken apart meanwhile
		}
		if err != nil {
			return nil, err
		}
		top, err := h.nodeAt(dir)
		if err != nil {
			return nil, err
		}
		if !visited[top.name] {
			visited[top.name] = true
			found, err := h.usesOf(top, visited)
			if err != nil {
				return nil, err
			}
			uses = append(uses, found...)
		}
		uses = append(uses, layer(n, top))
	}
	if set, err := os.Readlink(filepath.Join(n.dir, "bcache/set")); err == nil {
		uses = append(uses, layerUse(n, stack.CacheSet(filepath.Base(set))))
	}
	return uses, nil
}

// usesOf lists the uses of a device that is stacked on the subject.
func (h host) usesOf(top node, visited map[string]bool) ([]Use, error) {
	parts, err := h.partitions(top)
	if err != nil {
		return nil, err
	}
	s := subject{path: top.path(), nodes: append([]node{top}, parts...)}
	return look(s, h.mounts, h.btrfsMembers, h.swaps, h.loops, func(s subject) ([]Use, error) { return h.allAbove(s, visited) })
}

// layer describes the use of a device by one that is stacked on it.
func layer(below, top node) Use {
	level, err := block.Attribute(top.dir, "md/level")
	if err != nil {
		level = "" // it is no RAID
	}
	d := top.device()
	d.Level, d.Below = level, below.path()
	u := layerUse(below, d.Layer())
	if u.Kind == Multipath {
		u.Remedy += "; or install to " + top.path()
	}
	return u
}

func layerUse(below node, l stack.Layer) Use {
	return Use{Kind: Kind(l.Kind), What: below.path(), Why: l.Below, Remedy: l.Remedy, layer: true}
}

// oncePerRemedy keeps the lowest of the layers with the same remedy: the volumes of an LVM group go
// together, and those on others are no concern of the disk's.
func oncePerRemedy(uses []Use) []Use {
	seen := map[string]bool{}
	var kept []Use
	for _, u := range slices.Backward(uses) {
		key := u.String()
		if u.layer {
			key = u.Remedy
		}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, u)
		}
	}
	slices.Reverse(kept)
	return kept
}
