package mounts

import (
	"slices"
	"strings"
)

// Reached returns the mounts, in whatever namespace, that go when the mounts of tree are unmounted
// in the own namespace. tree is in the order of unmounting.
//
// An unmount is passed on by the mount that carries the mount point, the parent, to the parent's
// peers and to those that receive from them; the mount's own propagation does not matter. See
// mount_namespaces(7). A copy that carries a mount which stays does not go.
func Reached(s *Snapshot, tree []Mount) []Mount {
	going := map[int]bool{}
	for _, m := range tree {
		going[m.ID] = true
	}
	groups := newGroups(s)
	own := s.Own()
	var reached []Mount
	for _, m := range tree {
		parent, ok := Find(own.Mounts, m.Parent)
		if !ok || parent.Shared == 0 {
			continue
		}
		at := placeIn(parent, m)
		for ns, other := range s.All {
			if going[other.ID] || other.Dev != m.Dev || other.Root != m.Root {
				continue
			}
			carrier, ok := Find(ns.Mounts, other.Parent)
			if ok && groups.receives(carrier, parent.Shared) && placeIn(carrier, other) == at && carrier.Dev == parent.Dev {
				going[other.ID] = true
				reached = append(reached, other)
			}
		}
	}
	return withoutCarriers(s, reached, going)
}

// withoutCarriers leaves out the mounts that stay because they carry another one that stays. A
// mount on the root of a reached one does not keep it: the kernel moves it down.
func withoutCarriers(s *Snapshot, reached []Mount, going map[int]bool) []Mount {
	for changed := true; changed; {
		changed = false
		for _, m := range s.All {
			i := slices.IndexFunc(reached, func(r Mount) bool { return r.ID == m.Parent })
			if i >= 0 && !going[m.ID] && m.Point != reached[i].Point {
				going[m.Parent], changed = false, true
				reached = slices.Delete(reached, i, i+1)
			}
		}
	}
	return reached
}

// placeIn returns where a mount stands within its parent's file system.
func placeIn(parent, m Mount) string {
	below := strings.TrimPrefix(m.Point, strings.TrimSuffix(parent.Point, "/"))
	return strings.TrimSuffix(parent.Root, "/") + below
}

// groups knows from which peer group each peer group receives.
type groups map[uint64]uint64

func newGroups(s *Snapshot) groups {
	g := groups{}
	for _, m := range s.All {
		if m.Shared != 0 && m.Master != 0 {
			g[m.Shared] = m.Master
		}
	}
	return g
}

// receives reports whether an event in a peer group reaches a mount: as a peer, or as a slave, over
// any number of groups between.
func (g groups) receives(m Mount, group uint64) bool {
	if m.Shared == group {
		return true
	}
	seen := map[uint64]bool{}
	for from := m.Master; from != 0 && !seen[from]; from = g[from] {
		if from == group {
			return true
		}
		seen[from] = true
	}
	return false
}
