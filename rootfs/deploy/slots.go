package deploy

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// slots bound the directories of a tree that are worked on at a time.
type slots chan struct{}

func newSlots() slots { return make(slots, runtime.GOMAXPROCS(0)) }

// each calls do for each number below n: aside where a slot is free, else right here, so that
// nothing ever waits. It returns the first error.
func (s slots) each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, within := errgroup.WithContext(ctx)
	for i := 0; i < n && within.Err() == nil; i++ {
		select {
		case s <- struct{}{}:
			group.Go(func() error {
				defer func() { <-s }()
				return do(within, i)
			})
		default:
			if err := do(within, i); err != nil { // the group keeps the error that came first, not its echo
				group.Go(func() error { return err })
			}
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
