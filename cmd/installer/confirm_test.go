package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadConsent(t *testing.T) {
	for text, consents := range map[string]bool{
		"yes\n": true, " YES \r\n": true, "yes": true, "": false, "\n": false, "y\n": false, "no\n": false, "yes please\n": false,
	} {
		err := readConsent(t.Context(), strings.NewReader(text))
		if consents != (err == nil) || err != nil && !errors.Is(err, errDeclined) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Someone who interrupts instead of answering is not waited for.
func TestReadConsentIsInterrupted(t *testing.T) {
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	in, out := io.Pipe()
	defer out.Close()
	if err := readConsent(ctx, in); !errors.Is(err, stopped) {
		t.Error(err)
	}
}
