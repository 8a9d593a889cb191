package deploy

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// TestSlots has an error that comes from aside while the caller works on: it is the result, and not
// the cancellation that follows from it.
func TestSlots(t *testing.T) {
	fault := errors.New("fault")
	s := make(slots, 1)
	err := s.each(t.Context(), 2, func(ctx context.Context, i int) error {
		if i == 0 {
			return fault
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, fault) {
		t.Errorf("error %v, want %v", err, fault)
	}
	var done atomic.Int64
	if err := s.each(t.Context(), 100, func(context.Context, int) error { done.Add(1); return nil }); err != nil || done.Load() != 100 {
		t.Errorf("%d of 100 done, %v", done.Load(), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.each(ended, 1, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call returned %v", err)
	}
	if len(s) != 0 {
		t.Errorf("%d slots are taken", len(s))
	}
}
