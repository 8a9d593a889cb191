// Package kit has the steps that the tests of several packages share.
package kit

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Run runs a program, which must succeed, and returns its output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Sparse makes a file of a size, without content.
func Sparse(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// Patch changes bytes of a file for the time of fn.
func Patch(t testing.TB, path string, at int64, change []byte, fn func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old := make([]byte, len(change))
	if _, err := f.ReadAt(old, at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(change, at); err != nil {
		t.Fatal(err)
	}
	fn()
	if _, err := f.WriteAt(old, at); err != nil {
		t.Fatal(err)
	}
}

// Child is a program that runs beside a test.
type Child struct {
	PID    int
	Stdin  io.WriteCloser
	Stdout *bufio.Reader
	cmd    *exec.Cmd
	once   sync.Once
}

// Start starts a program, which is killed in the end at the latest.
func Start(t testing.TB, cmd *exec.Cmd) *Child {
	t.Helper()
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &Child{PID: cmd.Process.Pid, Stdin: stdin, Stdout: bufio.NewReader(stdout), cmd: cmd}
	t.Cleanup(c.Stop)
	return c
}

// Await reads the line that the program says when it is so far; one that never says it is killed.
func (c *Child) Await(t testing.TB, want string) {
	t.Helper()
	late := time.AfterFunc(30*time.Second, c.Stop)
	defer late.Stop()
	if line, err := c.Stdout.ReadString('\n'); line != want+"\n" {
		t.Fatalf("%q said %q (%v), not %q", c.cmd.Args, line, err, want)
	}
}

// Stop kills the program and waits for its end.
func (c *Child) Stop() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		_ = c.cmd.Wait()         // it was killed: the error says so
	})
}

// End closes the input of the program, which lets it end, and waits for that.
func (c *Child) End() {
	c.once.Do(func() {
		c.Stdin.Close()
		_ = c.cmd.Wait() // it has no status of interest
	})
}
