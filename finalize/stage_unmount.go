package finalize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"installer/disk/mounts"
)

// Unmounted is the evidence of unmount: the mounts in their order, each with the
// one umount2 that it took.
type Unmounted struct {
	Mounts []mounts.Mount `json:"mounts"`
	// Reached are the mounts in other namespaces that went along by propagation, which
	// prove-released checks.
	Reached []mounts.Mount `json:"reached,omitempty"`
	// Elsewhere are the mounts that were unmounted in other namespaces.
	Elsewhere []Elsewhere `json:"elsewhere,omitempty"`
	// Binds are those of the mounts whose file systems are not the target's, and stay mounted
	// elsewhere.
	Binds []Bind `json:"binds,omitempty"`
}

// Line implements Evidence.
func (u Unmounted) Line() string {
	points := make([]string, len(u.Mounts))
	for i, m := range u.Mounts {
		points[i] = m.Point
	}
	line := "unmounted once each: " + strings.Join(points, ", ")
	if len(u.Reached) > 0 {
		line += fmt.Sprintf("; %s in other namespaces went along", count(len(u.Reached), "mount"))
	}
	for _, e := range u.Elsewhere {
		line += fmt.Sprintf("; %s in %s", count(len(e.Mounts), "mount"), e.Namespace)
	}
	if binds := bindsLine(u.Binds); binds != "" {
		line += "; only unmounted, as their file systems are not of this target: " + binds
	}
	return line
}

// unmount takes the tree down leaf first, and stops at the first mount that will not go. A mount
// that has gone along with another one of the tree needs no umount2 of its own.
func unmount(ctx context.Context, r *Release) (Evidence, error) {
	var done Unmounted
	r.changed = nil // a tree that is unmounted in part is better left read-only
	for _, m := range r.Tree {
		if r.cut[m.ID] {
			if err := mounts.SetPrivate(m); err != nil {
				return done, err
			}
		}
	}
	for _, m := range r.Tree {
		err := r.writeOutLate(m)
		if err == nil {
			err = mounts.Unmount(m)
		}
		if err != nil {
			if _, gone := current(m); errors.Is(gone, errNotMounted) {
				done.Reached = append(done.Reached, m)
				continue
			}
			return done, r.explainBusy(ctx, m, err)
		}
		done.Mounts = append(done.Mounts, m)
	}
	done.Reached = append(done.Reached, r.reached...)
	done.Binds, r.gone = r.binds, true
	if r.Target.Copies != UnmountCopies {
		return done, nil
	}
	var err error
	done.Elsewhere, err = r.unmountElsewhere(ctx)
	return done, err
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
