package kit

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// signedTrees has the directory of each suite for [SignedTree].
var signedTrees sync.Map

// SignedTree returns a directory with the signed boot loaders and the signed kernel of a suite of
// Debian, trixie or bookworm, at their places in a root file system.
func SignedTree(t testing.TB, suite string) string {
	t.Helper()
	made, _ := signedTrees.LoadOrStore(suite, sync.OnceValues(func() (string, error) {
		_, file, _, _ := runtime.Caller(0)
		cmd := exec.Command(filepath.Join(filepath.Dir(file), "../image/signed"), suite)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}))
	tree, err := made.(func() (string, error))()
	if err != nil {
		t.Fatalf("making the tree of Debian %s's signed boot loaders: %v", suite, err)
	}
	return tree
}
