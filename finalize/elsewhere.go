package finalize

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"installer/disk/mounts"
)

// Elsewhere are mounts of the target in another mount namespace.
type Elsewhere struct {
	Namespace string         `json:"namespace"`
	Mounts    []mounts.Mount `json:"mounts"`
}

// namespaceMounts are the mounts to be unmounted in one namespace, leaf first.
type namespaceMounts struct {
	ns   mounts.Namespace
	list []mounts.Mount
}

// elsewhere returns the mounts of the target in other namespaces with all that stands on them, but
// for those that go along with the unmount.
func (r *Release) elsewhere(snapshot *mounts.Snapshot) []namespaceMounts {
	goes := map[int]bool{}
	for _, m := range r.reached {
		goes[m.ID] = true
	}
	var all []namespaceMounts
	for _, ns := range snapshot.Namespaces {
		if ns.Own {
			continue
		}
		if list := r.copiesIn(ns, goes); len(list) > 0 {
			all = append(all, namespaceMounts{ns, list})
		}
	}
	return all
}

func (r *Release) copiesIn(ns mounts.Namespace, skip map[int]bool) []mounts.Mount {
	var list []mounts.Mount
	seen := map[int]bool{}
	for _, m := range ns.Mounts {
		if !r.isOurs(m) || skip[m.ID] || m.Point == "/" {
			continue // the root of a namespace cannot be unmounted
		}
		below, err := mounts.LeafFirst(ns.Mounts, m.ID)
		if err != nil {
			continue // m is in the list, so that there is always an order
		}
		for _, b := range below {
			if !seen[b.ID] && !skip[b.ID] {
				seen[b.ID] = true
				list = append(list, b)
			}
		}
	}
	return list
}

// mountKey identifies a mount of any namespace.
type mountKey struct {
	unique uint64 // 0 where the kernel has none
	id     int
}

func keyOf(m mounts.Mount) mountKey { return mountKey{m.Unique, m.ID} }

// noteCopies remembers the mounts in other namespaces that are to be unmounted. When the superblock
// is gone, its device number may soon be another's: no other mount is touched then.
func (r *Release) noteCopies(snapshot *mounts.Snapshot) {
	r.copies = map[mountKey]bool{}
	for _, e := range r.elsewhere(snapshot) {
		for _, m := range e.list {
			r.copies[keyOf(m)] = true
		}
	}
}

// unmountElsewhere unmounts in the namespaces that the unmount did not reach. The list is made anew
// for each: an unmount in one may have reached the next.
func (r *Release) unmountElsewhere(ctx context.Context) ([]Elsewhere, error) {
	var done []Elsewhere
	tried := map[uint64]bool{}
	for {
		snapshot, err := mounts.List(ctx)
		if err != nil {
			return done, err
		}
		next, ok := firstUntried(r.elsewhere(snapshot), tried)
		if !ok {
			return done, nil
		}
		tried[next.ns.Inode] = true
		next.list = slices.DeleteFunc(next.list, func(m mounts.Mount) bool { return !r.copies[keyOf(m)] })
		if len(next.list) == 0 {
			continue
		}
		name := next.ns.Name()
		err = mounts.UnmountIn(ctx, next.ns, next.list, r.bindsAmong(next.list))
		if errors.Is(err, mounts.ErrEnded) {
			continue // its mounts went with it
		}
		if err != nil {
			return done, r.explainBusy(ctx, next.list[0], fmt.Errorf("in namespace %s: %w", name, err))
		}
		done = append(done, Elsewhere{name, next.list})
	}
}

// bindsAmong returns the mounts whose superblocks are not the target's: they may be peers of mounts
// that stay, to which the unmount of a mount on them would be passed on.
func (r *Release) bindsAmong(list []mounts.Mount) []mounts.Mount {
	return slices.DeleteFunc(slices.Clone(list), r.isOurs)
}

func firstUntried(all []namespaceMounts, tried map[uint64]bool) (namespaceMounts, bool) {
	for _, n := range all {
		if !tried[n.ns.Inode] {
			return n, true
		}
	}
	return namespaceMounts{}, false
}
