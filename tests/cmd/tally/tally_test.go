package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// suite runs the real `go test -json` on a module of one test file and tallies it.
func suite(t *testing.T, code string) (*tally, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module x\n\ngo 1.24\n", "x.go": "package x\n", "x_test.go": code} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "-vet=off", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	events, err := cmd.Output() // fails when the suite does
	if len(events) == 0 {
		t.Fatalf("no events: %v", err)
	}
	var out strings.Builder
	c := newTally(&out)
	if err := c.read(strings.NewReader(string(events))); err != nil {
		t.Fatal(err)
	}
	return c, out.String()
}

func TestTally(t *testing.T) {
	const head = "package x\n\nimport \"testing\"\n\n"
	for name, c := range map[string]struct {
		code, summary, says string
		good                bool
	}{
		"good":       {head + "func TestA(t *testing.T) { t.Run(\"b\", func(*testing.T) {}) }\n", "2 passed, 0 failed, 0 skipped", "ok   x", true},
		"fails":      {head + "func TestA(t *testing.T) { t.Error(\"because\") }\n", "0 passed, 1 failed, 0 skipped", "because", false},
		"skips":      {head + "func TestA(t *testing.T) { t.Skip(\"too hard\") }\nfunc TestB(*testing.T) {}\n", "1 passed, 0 failed, 1 skipped", "too hard", false},
		"none":       {"package x\n", "0 passed, 0 failed, 0 skipped", "", false},
		"panics":     {head + "func TestA(*testing.T) {}\nfunc TestB(*testing.T) { panic(\"boom\") }\n", "1 passed, 1 failed, 0 skipped", "boom", false},
		"no build":   {head + "func TestA(t *testing.T) { undefined() }\n", "0 passed, 1 failed, 0 skipped", "undefined", false},
		"exits":      {head + "import \"os\"\n\nfunc TestA(*testing.T) { os.Exit(1) }\n", "0 passed, 1 failed, 0 skipped", "", false},
		"dies":       {head + "func TestA(*testing.T) { go panic(\"elsewhere\"); select {} }\n", "0 passed, 1 failed, 0 skipped", "elsewhere", false},
		"main fails": {head + "import \"os\"\n\nfunc TestMain(*testing.M) { os.Exit(3) }\nfunc TestA(*testing.T) {}\n", "0 passed, 1 failed, 0 skipped", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, out := suite(t, c.code)
			if got.summary() != c.summary || got.good() != c.good || !strings.Contains(out, c.says) {
				t.Errorf("%q, good %v; want %q, %v, saying %q; printed:\n%s", got.summary(), got.good(), c.summary, c.good, c.says, out)
			}
		})
	}
}
