package finalize

import (
	"os"
	"testing"

	"installer/tests/targettest"
)

func TestMain(m *testing.M) {
	if os.Args[0] == FreezerArg0 {
		os.Exit(FreezerMain())
	}
	targettest.Main()
	os.Exit(m.Run())
}
