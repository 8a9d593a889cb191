package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// A signal to stop ends the context, and one that was ignored when the program started (nohup) does
// not.
func TestUntilSignal(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	ctx, stop := untilSignal(t.Context())
	defer stop()
	send := func(s syscall.Signal) {
		if err := syscall.Kill(syscall.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGHUP)
	select {
	case <-ctx.Done():
		t.Fatal("SIGHUP was obeyed")
	case <-time.After(50 * time.Millisecond):
	}
	send(syscall.SIGTERM)
	<-ctx.Done()
	if cause := context.Cause(ctx); !is[*signalError](cause) || !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
}
