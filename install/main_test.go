package install

import (
	"os"
	"testing"

	"installer/finalize"
)

// TestMain is the main of the process that freezes, too.
func TestMain(m *testing.M) {
	if os.Args[0] == finalize.FreezerArg0 {
		os.Exit(finalize.FreezerMain())
	}
	os.Exit(m.Run())
}
