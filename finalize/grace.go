package finalize

import (
	"context"
	"fmt"
	"slices"
	"time"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// graceTime is how long a release waits, once and before the one umount2, for
// what the kernel itself gives back late. io_uring takes 18 to 55 ms from the end
// of its process on Linux 6.18; the collector of unix sockets some 50 ms.
const graceTime = 250 * time.Millisecond

// Grace says that a release waited, and why.
type Grace struct {
	Why     []string `json:"why"` // the kernel workers, or sockets, that were seen
	Seconds float64  `json:"seconds"`
}

// watchAsync remembers the kernel workers that let go of files by themselves at
// this moment: they show their names only while they are at it.
func (r *Release) watchAsync() error {
	seen, err := holders.Asynchronous()
	for _, s := range seen {
		if !slices.Contains(r.async, s) {
			r.async = append(r.async, s)
		}
	}
	return err
}

// grace waits once if a mount of the tree is referred to, no holder was found, and
// the kernel is seen to be letting go of files by itself. In any other case it
// does nothing: a holder that shows itself is a finding.
func (r *Release) grace(ctx context.Context, unownedSockets int) (*Grace, error) {
	if err := r.watchAsync(); err != nil {
		return nil, err
	}
	why := slices.Clone(r.async)
	if unownedSockets > 0 {
		why = append(why, fmt.Sprintf("%d unix sockets are open in no process", unownedSockets))
	}
	if len(why) == 0 {
		return nil, nil
	}
	referenced, err := r.leafReferenced(ctx)
	if err != nil || !referenced {
		return nil, err
	}
	if err := holders.CollectSockets(); err != nil {
		return nil, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(graceTime):
	}
	return &Grace{Why: why, Seconds: time.Since(start).Seconds()}, nil
}

// leafReferenced asks about the mounts that no other stands on: those that carry
// one are referred to by it.
func (r *Release) leafReferenced(ctx context.Context) (bool, error) {
	carries := map[int]bool{}
	for _, m := range r.Tree {
		carries[m.Parent] = true
	}
	for _, m := range r.Tree {
		if carries[m.ID] {
			continue
		}
		if referenced, err := mounts.Referenced(ctx, m); referenced || err != nil {
			return referenced, err
		}
	}
	return false, nil
}
