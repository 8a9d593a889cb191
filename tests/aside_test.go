package tests

import "testing"

// asides is for one at a time: the tests leave about one core of two idle.
var asides = make(chan struct{}, 1)

// aside does something that takes minutes, mostly in a machine, while the test goes on, which
// should then call t.Parallel: the tests that follow run meanwhile. It must start processes by
// runChild alone, and end when the test's context does. The function that is returned waits for it.
func aside(t *testing.T, do func()) (wait func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		asides <- struct{}{}
		defer func() { <-asides }()
		do()
	}()
	wait = func() { <-done }
	t.Cleanup(wait) // of a test that failed meanwhile
	return wait
}
