package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Syscall is one that strace saw from its begin to its end.
type Syscall struct {
	PID    int
	Name   string
	Args   string // as strace prints them, without the parentheses
	Result string // all that follows " = ": "0", "-1 EBUSY (Device or resource busy)"
}

// Unmount is one umount2.
type Unmount struct {
	PID    int
	Target string // as it was given; relative to the caller's working directory or a descriptor's link
	Flags  string // "0", "UMOUNT_NOFOLLOW", ...
	OK     bool
}

// tracedCalls are those that a test of the finalize pipeline looks at: calls that mount, unmount or
// sleep. The ? lets strace run where the architecture lacks a call.
const tracedCalls = "?umount,umount2,mount,?move_mount,?open_tree,?fsmount,?fspick,?mount_setattr,nanosleep,clock_nanosleep,pivot_root,setns,unshare"

// Strace runs a program and everything it starts under strace. Descriptors are shown with the files
// that they are of, as 3</path>.
func Strace(t testing.TB, bin string, args ...string) (Result, []Syscall) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	r := RunBinary(t, "strace", append([]string{"-f", "--seccomp-bpf", "-y", "-qq", "-s", "4096", "-e", "trace=" + tracedCalls, "-e", "signal=none", "-o", log, bin}, args...)...)
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls, err := parseStrace(f)
	if err != nil {
		t.Fatalf("reading strace's log: %v", err)
	}
	return r, calls
}

var (
	straceLine    = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*)\)\s+= (.*)$`)
	straceBegin   = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*) <(?:unfinished|detached) \.\.\.>$`)
	straceResumed = regexp.MustCompile(`^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (.*)$`)
	// ??? is of a thread that was killed before its call could be read.
	straceOther = regexp.MustCompile(`^\d+\s+(\+\+\+|---|\?\?\?\((\)\s+= \?| <(?:detached|unfinished) \.\.\.>)$|<\.\.\. (?:\w+|\?\?\?) resumed>.*= \?)`)
)

// parseStrace joins the lines that strace -f splits when threads interleave. A line it does not
// know is an error: a call that is not seen would let a test pass.
func parseStrace(r io.Reader) ([]Syscall, error) {
	var calls []Syscall
	begun := map[string]string{} // "pid name" to the arguments so far
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := straceBegin.FindStringSubmatch(line); m != nil {
			begun[m[1]+" "+m[2]] = m[3]
		} else if m := straceResumed.FindStringSubmatch(line); m != nil {
			calls = append(calls, newSyscall(m[1], m[2], begun[m[1]+" "+m[2]]+m[3], m[4]))
			delete(begun, m[1]+" "+m[2])
		} else if m := straceLine.FindStringSubmatch(line); m != nil {
			calls = append(calls, newSyscall(m[1], m[2], m[3], m[4]))
		} else if !straceOther.MatchString(line) {
			return nil, fmt.Errorf("unknown line %q", line)
		}
	}
	for key, args := range begun { // begun and never ended: the thread was killed in it
		pid, name, _ := strings.Cut(key, " ")
		calls = append(calls, newSyscall(pid, name, args, "?"))
	}
	return calls, lines.Err()
}

func newSyscall(pid, name, args, result string) Syscall {
	n, _ := strconv.Atoi(pid) // the expression lets digits alone through
	return Syscall{PID: n, Name: name, Args: args, Result: result}
}

var umountArgs = regexp.MustCompile(`^"((?:[^"\\]|\\.)*)", (.*)$`)

// Unmounts picks every umount2 of a trace, in order.
func Unmounts(t testing.TB, calls []Syscall) []Unmount {
	t.Helper()
	var all []Unmount
	for _, c := range calls {
		if c.Name != "umount2" && c.Name != "umount" {
			continue
		}
		m := umountArgs.FindStringSubmatch(c.Args)
		if m == nil {
			t.Fatalf("umount2 with arguments %q", c.Args)
		}
		all = append(all, Unmount{PID: c.PID, Target: m[1], Flags: m[2], OK: c.Result == "0"})
	}
	return all
}

// Named picks the calls of one name.
func Named(calls []Syscall, name string) []Syscall {
	var found []Syscall
	for _, c := range calls {
		if c.Name == name {
			found = append(found, c)
		}
	}
	return found
}
