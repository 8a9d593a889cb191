package kit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// oracleTree is the tree of programs that tests/image/oracle makes.
var oracleTree = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.Command(filepath.Join(filepath.Dir(file), "../image/oracle"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
})

// Oracle runs a program of the composefs project, or an ostree that has composefs, and returns its
// output.
func Oracle(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := TryOracle(t, nil, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryOracle is [Oracle] for a program that may fail, and reads its input.
func TryOracle(t testing.TB, stdin []byte, program string, args ...string) (string, error) {
	t.Helper()
	tree := OracleTree(t)
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	libraries := filepath.Join(tree, "usr/lib", machine+"-linux-gnu")
	linkers, err := filepath.Glob(libraries + "/ld-linux-*.so.*")
	if err != nil || len(linkers) != 1 {
		t.Fatalf("the dynamic linker of %s: %v, %v", tree, linkers, err)
	}
	cmd := exec.Command(linkers[0], append([]string{"--library-path", libraries, filepath.Join(tree, "usr/bin", program)}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, &stderr)
	}
	return string(out), nil
}

// OracleTree returns the directory of the programs that [Oracle] runs.
func OracleTree(t testing.TB) string {
	t.Helper()
	tree, err := oracleTree()
	if err != nil {
		t.Fatalf("making the tree of oracles: %v", err)
	}
	return tree
}
