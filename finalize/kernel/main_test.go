package kernel

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"installer/disk/mounts"
	"installer/tests/targettest"
)

// viewOf has a mount point in the environment of a process that prints who uses the file system.
const viewOf = "INSTALLER_TEST_VIEW"

func TestMain(m *testing.M) {
	if point := os.Getenv(viewOf); point != "" {
		if err := printUsers(point); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	targettest.Main()
	os.Exit(m.Run())
}

func printUsers(point string) error {
	m, err := mounts.At(point)
	if err != nil {
		return err
	}
	v, err := OpenView()
	if err != nil {
		return err
	}
	defer v.Close()
	users, err := v.UsesOf(m.Dev)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(users)
}
