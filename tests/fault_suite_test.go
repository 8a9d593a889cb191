package tests

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The fault suite with a small count: tests/faults has it with more. Each kind must be there, most
// faults must strike, and no run may break a promise.
func TestFaults(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "faults")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", baseTags, "-o", bin, "./tests/cmd/faults")
	build.Dir = repoRoot(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the fault suite: %v\n%s", err, out)
	}
	kinds := strings.Count(mustCommand(t, bin, "-list"), "\n")
	if kinds < 20 {
		t.Fatalf("%d kinds of faults", kinds)
	}
	r := RunBinary(t, bin, "-installer", BuildInstaller(t), "-n", strconv.Itoa(kinds), "-seed", "7")
	t.Logf("%s%s", r.Stdout, r.Stderr)
	if r.Code != 0 {
		t.Errorf("exit status %d", r.Code)
	}
	m := regexp.MustCompile(`(?m)^seed 7: (\d+) runs, (\d+) faults injected, (\d+) kept every promise, 0 did not `).FindStringSubmatch(r.Stdout)
	if m == nil {
		t.Fatal("no tally")
	}
	injected, err := strconv.Atoi(m[2])
	must(t, err)
	if m[1] != strconv.Itoa(kinds) || m[3] != m[1] || injected < kinds/2 {
		t.Errorf("%s runs, %d faults, %s kept every promise", m[1], injected, m[3])
	}
}
