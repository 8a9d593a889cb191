package hostprog

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	"installer/install/printable"
)

// Command prepares a program that inherits files, numbered from 3, and dies with this process: the
// kernel kills it when the thread ends that started it, so the caller must lock its goroutine to
// that thread until the program has ended. It has a process group of its own, so that a terminal's
// Ctrl-C reaches this process alone.
func Command(files []*os.File, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Tail is a writer that keeps the end of a program's output.
type Tail struct {
	limit int
	buf   []byte
}

// NewTail returns a Tail that keeps so many bytes.
func NewTail(limit int) *Tail { return &Tail{limit: limit} }

func (t *Tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns the end, without characters that a terminal would obey.
func (t *Tail) String() string { return strings.TrimSpace(printable.Text(string(t.buf))) }

// Lines returns the last n lines.
func (t *Tail) Lines(n int) string {
	all := strings.Split(t.String(), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
