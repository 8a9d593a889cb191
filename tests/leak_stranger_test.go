package tests

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// stranger is a process that the installer did not start, in a copy of its mount namespace.
type stranger struct{ cmd *exec.Cmd }

// enter starts it in a copy of the namespace of the process pid, whose mounts it holds from then on.
func (s *stranger) enter(t testing.TB, pid int) {
	t.Helper()
	s.cmd = exec.Command("nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", pid), "unshare", "--mount", "sleep", "3600")
	if err := s.cmd.Start(); err != nil {
		t.Error(err)
		s.cmd = nil
	}
}

func (s *stranger) pid() int {
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// end kills it and waits for its end.
func (s *stranger) end(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(os.Kill); err != nil {
		t.Error(err)
	}
	_ = s.cmd.Wait() // it was killed: the error says so
	s.cmd = nil
}
