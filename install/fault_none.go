//go:build !faults

package install

// injectFault does nothing: only binaries built for tests leave something on the target.
func injectFault(*installation) error { return nil }
