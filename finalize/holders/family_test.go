package holders

import (
	"maps"
	"os"
	"testing"

	"installer/tests/targettest"
)

func TestFamilyBothWays(t *testing.T) {
	helper := targettest.Hold(t, "nothing")
	byChildren, err := family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	byParents, err := familyByParents(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(byChildren, byParents) || !byChildren[helper.PID] || !byChildren[os.Getpid()] {
		t.Errorf("%v and %v, want %d in both", byChildren, byParents, helper.PID)
	}
}
