package tests

import (
	"fmt"
	"os"
	"testing"
)

// TestMain gives the run a directory for files that its tests share, and refuses to run as less
// than root: a test that cannot attach a loop device has shown nothing.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root: run tests/run")
		return 2
	}
	dir, err := os.MkdirTemp("", "installer-tests")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	runDir = dir
	return m.Run()
}

// runDir is set once, before the first test.
var runDir string
