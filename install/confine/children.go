package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt makes the calling process the one that orphaned descendants fall to,
// so that whatever it started, however indirectly, stays in sight as its child.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of orphaned descendants: %w", err)
	}
	return nil
}

// EndChildren kills every child of the calling process and waits for it, and
// for those that fall to it as orphans meanwhile, and returns their pids. It is
// the last resort of a run that failed; a run that succeeds has proved that it has none.
func EndChildren() ([]int, error) {
	var ended []int
	for {
		children, err := children()
		if err != nil || len(children) == 0 {
			return ended, err
		}
		for _, pid := range children {
			// A child cannot be reaped by anyone else: its pid is still its own.
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return ended, fmt.Errorf("killing child process %d: %w", pid, err)
			}
			if err := reap(pid); err != nil {
				return ended, err
			}
			ended = append(ended, pid)
		}
	}
}

// reap waits for the end of pid, whatever signal it was to send at its end (WALL).
func reap(pid int) error {
	for {
		_, err := unix.Wait4(pid, nil, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ECHILD): // ECHILD: reaped by the os/exec call that started it
			return fmt.Errorf("waiting for child process %d: %w", pid, err)
		}
		return nil
	}
}

// children lists the children of every thread of the calling process.
func children() ([]int, error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	if len(lists) == 0 {
		return nil, errors.New("listing child processes: this kernel does not show them (CONFIG_PROC_CHILDREN), or /proc is not mounted")
	}
	var pids []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) { // the thread has ended since
				continue
			}
			return nil, fmt.Errorf("listing child processes: %w", err)
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("listing child processes: %s: %w", list, err)
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
