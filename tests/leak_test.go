package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// faultVariable makes the installer leave something on the target on purpose. Only a binary built
// with the tag faults knows it.
const faultVariable = "INSTALLER_FAULT"

// A handle that the program forgets on the target must fail the run before anything is unmounted,
// and be named: the object, the owner, and where the handle was opened.
func TestLeaks(t *testing.T) {
	const here = `\S*install/fault_inject\.go:\d+ \S*install\.leak`
	for _, leak := range []struct {
		fault, stage string
		wants        []string // expressions, each of which the message must match
	}{
		{"map", "drop-handles", []string{
			`this process: map \S*ostree/repo/objects/\S+\.dirtree, opened at \S*rootfs/ostree/\S+ \S+, called from ` + here,
			`map by process \d+ \(installer, this process\) on "\S*objects/\S+\.dirtree" \[/proc/\S*maps`,
		}},
		{"fd", "drop-handles", []string{
			`this process: fd /run/installer/root/ostree/deploy/\S+/usr/lib/os-release, opened at ` + here,
			`fd by process \d+ \(installer, this process\) on "\S+/usr/lib/os-release" \[/proc/\S*fd`,
		}},
		{"child-cwd", "prove-self-free", []string{
			`cwd by process CHILD \(sleep, started by this process\) on "\S*" \[/proc/CHILD\S*/cwd`,
		}},
		{"child-mntns", "prove-self-free", []string{
			`namespace by process CHILD \(sleep, started by this process\) in mnt:\[\d+\] \[/proc/CHILD/ns/mnt`,
		}},
	} {
		t.Run(leak.fault, func(t *testing.T) {
			adoptOrphans(t)
			dir := t.TempDir()
			r, calls := runWithFault(t, dir, leak.fault)
			if r.Code != 3 {
				t.Errorf("exit status %d, want 3", r.Code)
			}
			message, child := r.Stderr, heldByChild(r.Stderr)
			if strings.HasPrefix(leak.fault, "child") == (child == "") {
				t.Errorf("child that holds the target: %q", child)
			}
			wants := append(slices.Clone(leak.wants), `the target is held \(`+leak.stage+`\)`)
			for _, want := range wants {
				want = strings.ReplaceAll(want, "CHILD", child)
				if !regexp.MustCompile(want).MatchString(message) {
					t.Errorf("the message does not match %s:\n%s", want, message)
				}
			}
			if strings.Contains(r.Stdout+r.Stderr, "complete") {
				t.Errorf("success is claimed:\n%s%s", r.Stdout, r.Stderr)
			}
			failedStage(t, filepath.Join(dir, "report.json"), leak.stage)
			failedBeforeUnmount(t, calls)
			nothingLeft(t, dir)
		})
	}
}

func runWithFault(t *testing.T, dir, fault string) (Result, []Syscall) {
	t.Helper()
	t.Setenv(faultVariable, fault)
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, tinySize)
	return Strace(t, BuildInstaller(t, "faults"), installArgs(TinyImage(t), raw, "--report", filepath.Join(dir, "report.json"))...)
}

var heldBy = regexp.MustCompile(`by process (\d+) \(sleep, started by this process\)`)

// heldByChild returns the process id of the child that the installer names as a holder.
func heldByChild(stderr string) string {
	if m := heldBy.FindStringSubmatch(stderr); m != nil {
		return m[1]
	}
	return ""
}

func failedStage(t *testing.T, report, stage string) {
	t.Helper()
	r := readReport(t, report)
	if r.Outcome != "failed" || !strings.Contains(r.Error, "held") || r.Finalize == nil || r.Finalize.Released {
		t.Fatalf("the report says %q, error %q", r.Outcome, r.Error)
	}
	failed := false
	for _, s := range r.Finalize.Stages {
		want := map[bool]string{false: "ok", true: "not-run"}[failed]
		if s.Name == stage {
			want, failed = "failed", true
		}
		if s.Status != want {
			t.Errorf("stage %s is %q in the report, want %q", s.Name, s.Status, want)
		}
	}
	if !failed {
		t.Errorf("the report has no stage %s", stage)
	}
}

// failedBeforeUnmount wants the target's mount left as it was, and its loop device: both end with
// the process's own namespace.
func failedBeforeUnmount(t *testing.T, calls []Syscall) {
	t.Helper()
	if points := mountPoints(t, calls); !slices.Contains(points, workspaceDir+"/root") {
		t.Errorf("mounted %q, not the root", points)
	}
	for _, u := range Unmounts(t, withoutQuestions(calls)) {
		t.Errorf("%+v", u)
	}
	for _, c := range calls {
		if c.Name == "fspick" { // which begins the change of a superblock
			t.Errorf("made read-only: %s", c.Args)
		}
	}
}

// The binary that people get has no such seam.
func TestNoFaultsInRelease(t *testing.T) {
	plain, err := os.ReadFile(BuildInstaller(t))
	must(t, err)
	faulty, err := os.ReadFile(BuildInstaller(t, "faults"))
	must(t, err)
	if strings.Contains(string(plain), faultVariable) || !strings.Contains(string(faulty), faultVariable) {
		t.Errorf("the variable %s is known to the usual binary, or not to the other one", faultVariable)
	}
	t.Setenv(faultVariable, "fd")
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	Run(t, installArgs(TinyImage(t), raw)...).Must(t)
}

// Somebody else who holds the target in another namespace is named, after which the target is
// as it was: writable, mounted nowhere but in the run's own namespace, and released with it.
func TestStrangerHolds(t *testing.T) {
	adoptOrphans(t)
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, diskSize)
	stranger := &stranger{}
	t.Cleanup(func() { stranger.end(t) })
	r := runWatched(t, setup{filesystem: "xfs", bootloader: "grub"}.args(t), raw, func(p *os.Process, e runEvent) {
		if e.Event == "step" && e.Step == "import" { // mounted by then, and far from done
			stranger.enter(t, p.Pid)
		}
	})
	pid := fmt.Sprint(stranger.pid())
	if r.Code != 3 || !strings.Contains(r.Stderr, "process "+pid+" (sleep)") || !strings.Contains(r.Stderr, "prove-no-holders") {
		t.Errorf("exit status %d, want 3 and process %s named:\n%s", r.Code, pid, r.Stderr)
	}
	if loops, err := loopsBelow(dir); err != nil || len(loops) != 1 {
		t.Errorf("while the stranger holds the target its loop devices are %v (%v), want one", loops, err)
	}
	began := time.Now()
	stranger.end(t)
	nothingLeft(t, dir)
	t.Logf("released %s after the stranger's end", time.Since(began).Round(time.Millisecond))
}
