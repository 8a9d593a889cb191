package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// workspaceDir is where the installer mounts its private tmpfs.
const workspaceDir = "/run/installer"

// nothingLeft fails the test if a finished or killed run of the installer on a file below dir left
// something. A killed process is torn down by the kernel in its own time, so it gets some.
//
// A mount of the target in whatever namespace, even one that no process is in, keeps the loop
// device, and that names its file: no loop device on the file means no mount of it.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := leftovers(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func leftovers(dir string) ([]string, error) {
	var left []string
	loops, err := loopsBelow(dir)
	if err != nil {
		return nil, err
	}
	for dev, file := range loops {
		left = append(left, fmt.Sprintf("loop device %s on %s", dev, file))
	}
	processes, err := processesOn(dir)
	if err != nil {
		return nil, err
	}
	left = append(left, processes...)
	entries, err := os.ReadDir(workspaceDir) // as this namespace sees it
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, e := range entries {
		left = append(left, "directory entry "+filepath.Join(workspaceDir, e.Name()))
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(own), "\n") {
		if strings.Contains(line, " "+workspaceDir) || strings.Contains(line, " "+dir+"/") {
			left = append(left, "mount "+line)
		}
	}
	return left, nil
}

// processesOn lists the processes that this one did not start itself and yet are its children, that
// is orphans (see adoptOrphans), and the installers that work on a file below dir. A boot that runs
// aside is neither.
func processesOn(dir string) ([]string, error) {
	children.Lock()
	defer children.Unlock()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		pid := filepath.Base(filepath.Dir(name))
		line, err := os.ReadFile(name)
		if err != nil && !processGone(err) {
			return nil, err
		}
		if err != nil || pid == strconv.Itoa(os.Getpid()) || goesOnAside(pid) {
			continue // ended since, or another test's
		}
		text := strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
		if strings.Contains(text, " to-disk ") && strings.Contains(text, dir+"/") {
			found = append(found, "process "+pid+": "+text)
		} else if orphan(pid) {
			found = append(found, "orphan "+pid+": "+text)
		}
	}
	return found, nil
}

// processGone reports whether a file of /proc could not be read because its process has ended.
func processGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

func goesOnAside(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && children.pids[n]
}

// adoptOrphans makes processes that a killed installer leaves children of this process: it cannot
// hide.
func adoptOrphans(t testing.TB) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
}

// orphan reports whether a process is a child of this one that runs; a zombie is reaped. It is
// asked only while the test waits for no child of its own.
func orphan(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil && !processGone(err) {
		return true // it may be one
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
		return false
	}
	if fields[0] == "Z" {
		if n, err := strconv.Atoi(pid); err == nil {
			_, _ = unix.Wait4(n, nil, unix.WNOHANG|unix.WALL, nil)
		}
		return false
	}
	return true
}

// The search must be able to find: a loop device, and an orphan.
func TestNothingLeftFinds(t *testing.T) {
	adoptOrphans(t)
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, 1<<20)
	expect := func(part string) {
		t.Helper()
		left, err := leftovers(dir)
		must(t, err)
		if all := strings.Join(left, "; "); !strings.Contains(all, part) {
			t.Errorf("found %q, want %q in it", all, part)
		}
	}
	loop, err := attach(raw, os.O_RDONLY, 0, 1<<20)
	must(t, err)
	expect("loop device")
	must(t, loop.Close())
	var pid int
	out, err := exec.Command("sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!").Output()
	must(t, err)
	_, err = fmt.Sscan(string(out), &pid)
	must(t, err)
	expect("orphan")
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	nothingLeft(t, dir)
}
