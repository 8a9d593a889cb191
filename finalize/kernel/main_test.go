package kernel

import (
	"os"
	"testing"

	"installer/tests/targettest"
)

func TestMain(m *testing.M) {
	targettest.Main()
	os.Exit(m.Run())
}
