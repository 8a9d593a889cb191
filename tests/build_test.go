package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// baseTags keep cgo out of the image libraries.
const baseTags = "containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"

var builds struct {
	sync.Mutex
	done map[string]string // by build tags
}

// BuildInstaller returns the path of the static installer, built with these tags besides the usual
// ones; it is built once a run for each set of tags.
func BuildInstaller(t testing.TB, tags ...string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	all := strings.Join(append([]string{baseTags}, tags...), ",")
	if bin, ok := builds.done[all]; ok {
		return bin
	}
	bin := filepath.Join(runDir, fmt.Sprintf("installer-%x", sha256.Sum256([]byte(all)))[:20])
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", all, "-o", bin, "./cmd/installer")
	cmd.Dir = repoRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the installer with tags %q: %v\n%s", tags, err, out)
	}
	if builds.done == nil {
		builds.done = map[string]string{}
	}
	builds.done[all] = bin
	return bin
}

// BuildCommand returns the path of the static program of tests/cmd/NAME, built once a run.
func BuildCommand(t testing.TB, name string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	bin := filepath.Join(runDir, "command-"+name)
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./tests/cmd/"+name)
	cmd.Dir = repoRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building tests/cmd/%s: %v\n%s", name, err, out)
	}
	return bin
}

func repoRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("finding the module: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// Result is how a program ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status; -1 when a signal ended it
}

// Run runs the installer as a user would and returns how it ended, whatever the exit status.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return RunBinary(t, BuildInstaller(t), args...)
}

// RunBinary runs any program like Run. It dies with the test.
func RunBinary(t testing.TB, bin string, args ...string) Result {
	t.Helper()
	r, err := runProgram(t.Context(), bin, args...)
	if err != nil {
		t.Fatalf("running %s: %v", bin, err)
	}
	return r
}

// runProgram has an error only when the program could not be run at all.
func runProgram(ctx context.Context, bin string, args ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.Code = exit.ExitCode()
		return r, nil
	}
	return r, err
}

// Must fails the test unless the program succeeded.
func (r Result) Must(t testing.TB) Result {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit status %d\nstdout:\n%s\nstderr:\n%s", r.Code, r.Stdout, r.Stderr)
	}
	return r
}

// command runs an oracle or a tool and returns its output; the error has its output.
func command(ctx context.Context, bin string, args ...string) (string, error) {
	r, err := runProgram(ctx, bin, args...)
	if err != nil {
		return "", fmt.Errorf("running %s: %w", bin, err)
	}
	if r.Code != 0 {
		return "", fmt.Errorf("%s %s: exit status %d\n%s%s", bin, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout, nil
}

// mustCommand is command for a test that cannot go on without it.
func mustCommand(t testing.TB, bin string, args ...string) string {
	t.Helper()
	out, err := command(t.Context(), bin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
