package confine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Args[0] == Arg0 {
		err := Main()
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// busybox-like root: the shell of this machine with the libraries it needs.
func shellRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"tmp", "dev", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"sh", "cat", "touch", "mount", "chroot", "sleep", "id", "tail"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		copyWithLibraries(t, root, path)
	}
	return root
}

func copyWithLibraries(t *testing.T, root, path string) {
	t.Helper()
	copyFile(t, path, filepath.Join(root, "usr/bin", filepath.Base(path)))
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			copyFile(t, field, filepath.Join(root, field))
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, root, script string, files map[string][]byte) (string, error) {
	t.Helper()
	out, err := Output(context.Background(), Program{Root: root, Argv: []string{"sh", "-c", script}, Files: files})
	return string(out), err
}

func TestOutputReturnsWhatTheProgramPrints(t *testing.T) {
	root := shellRoot(t)
	big := strings.Repeat("x", 1<<20) // more than a pipe holds
	out, err := shell(t, root, "cat /tmp/input", map[string][]byte{"input": []byte(big)})
	if err != nil {
		t.Fatal(err)
	}
	if out != big {
		t.Errorf("got %d bytes of output, want %d", len(out), len(big))
	}
}

func TestProgramCannotReachTheHost(t *testing.T) {
	root := shellRoot(t)
	for name, script := range map[string]string{
		"write to its root":    "touch /usr/bin/new",
		"mount":                "mount -t tmpfs tmpfs /tmp",
		"remount its root":     "mount -o remount,rw /",
		"leave its root":       "chroot /tmp /bin/sh",
		"see another process":  "test -e /proc/1",
		"find the host's file": "test -e " + filepath.Join(root, "usr"),
	} {
		if out, err := shell(t, root, script, nil); err == nil {
			t.Errorf("%s: succeeded with output %q", name, out)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "usr/bin/new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program wrote to its root: %v", err)
	}
	if out, err := shell(t, root, "echo $$; touch /tmp/private && cat </dev/null && id -u", nil); err != nil || out != "1\n0\n" {
		t.Errorf("got %q, %v; want it to be process 1, with a writable /tmp and a /dev/null", out, err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "tmp")); err != nil || len(entries) != 0 {
		t.Errorf("the program's /tmp was not its own: %v, %v", entries, err)
	}
}

func TestSymlinkAtTmpLeadsNowhere(t *testing.T) {
	root := shellRoot(t)
	outside := t.TempDir()
	if err := os.Remove(filepath.Join(root, "tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "tmp")); err != nil {
		t.Fatal(err)
	}
	if _, err := shell(t, root, "true", map[string][]byte{"evil": nil}); err == nil {
		t.Error("a /tmp that leads out of the root was accepted")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("something was written outside: %v, %v", entries, err)
	}
}

func TestNothingOutlivesTheProgram(t *testing.T) {
	root := shellRoot(t)
	mark := strconv.Itoa(os.Getpid()) + ".25" // a duration nobody else sleeps for
	if _, err := shell(t, root, "sleep "+mark+" >/dev/null 2>&1 & exit 0", nil); err != nil {
		t.Fatal(err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), "sleep\x00"+mark) {
			t.Errorf("still running: %s", path)
		}
	}
}

func TestFailureQuotesTheProgram(t *testing.T) {
	err := Run(context.Background(), []string{"sh", "-c", "echo it went wrong >&2; exit 7"})
	var exit *ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "it went wrong") {
		t.Errorf("got %v", err)
	}
	if err := Run(context.Background(), []string{"no-such-program-here"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v, want exec.ErrNotFound", err)
	}
	if _, err := shell(t, shellRoot(t), "exit 3", map[string][]byte{"../x": nil}); err == nil {
		t.Error("a file name that leaves /tmp was accepted")
	}
}

func TestCancelKillsTheProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := Run(ctx, []string{"sleep", "60"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// A program of the image that writes or allocates without end is ended, and its output is not kept.
func TestAnEndlessProgramIsEnded(t *testing.T) {
	root := shellRoot(t)
	for name, script := range map[string]string{
		"output": "cat /dev/zero",
		"a file": "cat /dev/zero >/tmp/file",
		"memory": "tail /dev/zero", // which keeps a line to its end
	} {
		out, err := shell(t, root, script, nil)
		if !errors.As(err, new(*ExitError)) || len(out) > 0 {
			t.Errorf("%s: %d bytes, %v; want the program to be ended", name, len(out), err)
		}
	}
}
