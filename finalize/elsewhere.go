package finalize

import (
	"context"
	"fmt"

	"installer/finalize/mounts"
)

// Elsewhere are mounts of the target in another mount namespace.
type Elsewhere struct {
	Namespace string         `json:"namespace"`
	Mounts    []mounts.Mount `json:"mounts"`
}

// lookElsewhere works out what becomes of the target's mounts in other namespaces:
// those that the unmount reaches go with it, and so do, when asked, those that
// it does not reach. All the rest are holders.
func (r *Release) lookElsewhere(ctx context.Context) error {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return err
	}
	r.reached = mounts.Reached(snapshot, r.Tree)
	for _, m := range r.reached {
		r.held.Mounts = append(r.held.Mounts, m.ID)
	}
	if r.Target.AllNamespaces {
		for _, e := range r.elsewhere(snapshot) {
			for _, m := range e.list {
				r.held.Mounts = append(r.held.Mounts, m.ID)
			}
		}
	}
	return nil
}

// namespaceMounts are the mounts to be unmounted in one namespace, leaf first.
type namespaceMounts struct {
	ns   mounts.Namespace
	list []mounts.Mount
}

// elsewhere returns the mounts of the target's devices in other namespaces, and
// what stands on them, but for those that go by themselves.
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
		if list := r.onDevices(ns, goes); len(list) > 0 {
			all = append(all, namespaceMounts{ns, list})
		}
	}
	return all
}

func (r *Release) onDevices(ns mounts.Namespace, skip map[int]bool) []mounts.Mount {
	var list []mounts.Mount
	seen := map[int]bool{}
	for _, m := range ns.Mounts {
		if !r.isDevice(m.Dev) || skip[m.ID] {
			continue
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

func (r *Release) isDevice(d mounts.DevNum) bool {
	for _, m := range r.filesystems() {
		if m.Dev == d {
			return true
		}
	}
	return false
}

// unmountElsewhere unmounts in the namespaces that the unmount did not reach. The
// list is made anew for each: an unmount in one may have reached the next.
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
		name := fmt.Sprintf("mnt:[%d]", next.ns.Inode)
		if err := mounts.UnmountIn(ctx, next.ns, next.list); err != nil {
			return done, r.explainBusy(ctx, next.list[0], fmt.Errorf("in namespace %s: %w", name, err))
		}
		done = append(done, Elsewhere{name, next.list})
	}
}

func firstUntried(all []namespaceMounts, tried map[uint64]bool) (namespaceMounts, bool) {
	for _, n := range all {
		if !tried[n.ns.Inode] {
			return n, true
		}
	}
	return namespaceMounts{}, false
}
