package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each mount that the installer makes is unmounted by one umount2, which succeeds at once: none is
// lazy, none is repeated.
func TestUnmountsUnderStrace(t *testing.T) {
	for _, s := range hostSetups() {
		t.Run(s.filesystem, func(t *testing.T) {
			calls := Installed(t, s).calls
			mounted := mountPoints(t, calls)
			if want := []string{workspaceDir, workspaceDir + "/root"}; !slices.Equal(mounted, want) {
				t.Fatalf("mounted %q, want %q", mounted, want)
			}
			slices.Reverse(mounted)
			checkUnmounts(t, Unmounts(t, withoutQuestions(calls)), mounted)
			checkSleeps(t, calls)
		})
	}
}

var mountTarget = regexp.MustCompile(`^\d+<[^>]*>, "", \d+<([^>]*)>, ""`)

// mountPoints lists where the installer mounted, in order. It mounts by move_mount alone; calls of
// mount(2) are made by the helper of a confined program, in that program's own namespace.
func mountPoints(t *testing.T, calls []Syscall) []string {
	t.Helper()
	var points []string
	for _, c := range Named(calls, "move_mount") {
		m := mountTarget.FindStringSubmatch(c.Args)
		if m == nil || c.Result != "0" {
			t.Fatalf("move_mount(%s) = %s", c.Args, c.Result)
		}
		points = append(points, m[1])
	}
	return points
}

// withoutQuestions leaves out the call that asks the kernel whether umount2 is permitted: it names
// no mount.
func withoutQuestions(calls []Syscall) []Syscall {
	return slices.DeleteFunc(slices.Clone(calls), func(c Syscall) bool {
		return c.Name == "umount2" && strings.HasPrefix(c.Args, `""`) && strings.HasPrefix(c.Result, "-1 ENOENT")
	})
}

// checkUnmounts wants exactly these points unmounted, in this order. The kernel is given the name in
// its directory, whose path strace does not see: only the last component can be compared.
func checkUnmounts(t *testing.T, got []Unmount, points []string) {
	t.Helper()
	if len(got) != len(points) {
		t.Errorf("%d calls of umount2 for %d mounts: %+v", len(got), len(points), got)
	}
	for i, u := range got[:min(len(got), len(points))] {
		if !u.OK || u.Flags != "UMOUNT_NOFOLLOW" || filepath.Base(u.Target) != filepath.Base(points[i]) {
			t.Errorf("umount2 %d is %+v, want %s with UMOUNT_NOFOLLOW to succeed", i+1, u, points[i])
		}
	}
}

var nanosleep = regexp.MustCompile(`^\{tv_sec=(\d+), tv_nsec=(\d+)\}`)

// checkSleeps allows the Go runtime's own naps: its monitor thread sleeps by nanosleep for at most
// 10 ms (sysmon in the runtime's proc.go). Nothing else in a program that waits for nobody sleeps,
// the helper programs included. A time.Sleep makes no such call: TestNoWaitingInSource looks for
// that.
func checkSleeps(t *testing.T, calls []Syscall) {
	t.Helper()
	for _, c := range Named(calls, "clock_nanosleep") {
		t.Errorf("clock_nanosleep(%s)", c.Args)
	}
	for _, c := range Named(calls, "nanosleep") {
		m := nanosleep.FindStringSubmatch(c.Args)
		if m == nil {
			t.Errorf("nanosleep(%s)", c.Args)
			continue
		}
		sec, errSec := strconv.Atoi(m[1])
		nsec, errNsec := strconv.Atoi(m[2])
		long := time.Duration(sec)*time.Second+time.Duration(nsec) > 10*time.Millisecond
		if errSec != nil || errNsec != nil || long {
			t.Errorf("nanosleep(%s)", c.Args)
		}
	}
}

// waiting are the names by which a Go program waits for time to pass, or unmounts lazily.
var waiting = []string{"Sleep", "After", "Tick", "NewTimer", "NewTicker", "Nanosleep", "ClockNanosleep", "MNT_DETACH", "MNT_FORCE"}

// Code that decides about busy must not wait for it: no such name is in the code that releases and
// detaches.
func TestNoWaitingInSource(t *testing.T) {
	for _, dir := range []string{"finalize", "disk"} {
		files := 0
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "internal" { // helpers of tests
				return fs.SkipDir
			}
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				files++
				noWaiting(t, path)
			}
			return nil
		})
		must(t, err)
		if files < 5 {
			t.Errorf("only %d files in %s", files, dir)
		}
	}
}

func noWaiting(t *testing.T, path string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	must(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		from, ok := sel.X.(*ast.Ident)
		if ok && slices.Contains([]string{"time", "unix", "syscall"}, from.Name) && slices.Contains(waiting, sel.Sel.Name) {
			t.Errorf("%s: %s.%s", set.Position(sel.Pos()), from.Name, sel.Sel.Name)
		}
		return true
	})
}
