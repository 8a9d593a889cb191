package kernel

import (
	"os"
	"testing"

	"installer/finalize/internal/targettest"
)

func TestMain(m *testing.M) {
	targettest.Main()
	os.Exit(m.Run())
}
