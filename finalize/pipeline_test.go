package finalize

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/finalize/holders"
	"installer/tests/kit"
	"installer/tests/targettest"
)

func targetOf(x *targettest.Target) Target {
	return Target{
		Mountpoint: x.Dir, Ledger: NewLedger(), Detach: []Detacher{x},
		Devices: []Device{{Path: x.Loop, Major: x.Number.Major, Minor: x.Number.Minor, FSType: x.FSType, File: x.File}},
	}
}

func TestRelease(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			x := targettest.New(t, fs)
			var seen []string
			p := Pipeline{Stages: DiskStages()}
			report, err := p.Run(t.Context(), targetOf(x), func(r StageResult) { seen = append(seen, r.Name) })
			if err != nil {
				t.Fatal(err)
			}
			if !report.Released || x.IsMounted() || len(seen) != len(DiskStages()) {
				t.Errorf("released %v, mounted %v, stages %v", report.Released, x.IsMounted(), seen)
			}
			for _, s := range report.Stages {
				blind := s.Name == "prove-no-holders" && s.Status == Note // some process may be hidden even from root
				if (s.Status != OK && !blind) || s.Summary == "" {
					t.Errorf("%s: %s %q %s", s.Name, s.Status, s.Summary, s.Error)
				}
			}
			if _, err := json.Marshal(report); err != nil {
				t.Error(err)
			}
			if text, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(x.Loop, "/dev/") + "/loop/backing_file"); err == nil {
				t.Errorf("the loop device is still there: %s", text)
			}
		})
	}
}

// statuses returns the names of the stages of a status.
func statuses(r *Report, s Status) []string {
	var names []string
	for _, stage := range r.Stages {
		if stage.Status == s {
			names = append(names, stage.Name)
		}
	}
	return names
}

// wantHeld runs the release and wants it to fail in a stage, with the mount as it
// was, by a holder of a class and process.
func wantHeld(t *testing.T, x *targettest.Target, target Target, stage string, class holders.Class, pid int) *HeldError {
	t.Helper()
	before := x.At().Line()
	p := Pipeline{Stages: DiskStages()}
	report, err := p.Run(t.Context(), target, nil)
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("no holder: %v", err)
	}
	if failed := statuses(report, Failed); len(failed) != 1 || failed[0] != stage || held.Stage != stage {
		t.Errorf("failed in %v (%s), want %s", failed, held.Stage, stage)
	}
	if now := x.At().Line(); now != before {
		t.Errorf("the target is not as it was:\n%s\n%s", now, before)
	}
	if !slices.Contains(statuses(report, NotRun), "unmount") || !x.IsMounted() || report.Released {
		t.Errorf("it was unmounted: %+v", report)
	}
	if !slices.ContainsFunc(held.Holders, func(h holders.Holder) bool { return h.Class == class && h.PID == pid }) {
		t.Errorf("no %s of process %d in: %v", class, pid, err)
	}
	return held
}

func release(t *testing.T, x *targettest.Target) {
	t.Helper()
	p := Pipeline{Stages: DiskStages()}
	if report, err := p.Run(t.Context(), targetOf(x), nil); err != nil || !report.Released {
		t.Errorf("without the holder: %v", err)
	}
}

func TestLeakedMappingIsNamed(t *testing.T) {
	x := targettest.New(t, "xfs")
	fd, err := unix.Open(x.Path("file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	leak, err := unix.Mmap(fd, 0, 64<<10, unix.PROT_READ, unix.MAP_PRIVATE)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	target := targetOf(x)
	released := targettest.Record(target.Ledger, "map", "object abc.dirtree")
	held := wantHeld(t, x, target, "drop-handles", holders.Map, os.Getpid())
	text := held.Error()
	for _, part := range []string{"object abc.dirtree", "opened at", "pipeline_test.go:", "maps:", "this process"} {
		if !strings.Contains(text, part) {
			t.Errorf("the message lacks %q:\n%s", part, text)
		}
	}
	released()
	// The ledger cannot know of it now; the search must.
	wantHeld(t, x, targetOf(x), "prove-self-free", holders.Map, os.Getpid())
	if err := unix.Munmap(leak); err != nil {
		t.Fatal(err)
	}
	release(t, x)
}

func TestHeldByChild(t *testing.T) {
	cases := []struct {
		kind, name string
		class      holders.Class
	}{{"cwd", "dir", holders.Cwd}, {"map", "file", holders.Map}, {"clone-ns", "", holders.Namespace}, {"ns-fd", "", holders.Namespace}}
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		for _, c := range cases {
			helper := targettest.Hold(t, c.kind, x.Path(c.name))
			wantHeld(t, x, targetOf(x), "prove-self-free", c.class, helper.PID)
			helper.Stop()
		}
		release(t, x)
	}
}

func TestForgottenDescriptor(t *testing.T) {
	x := targettest.New(t, "ext4")
	f, err := os.Open(x.Path("file"))
	if err != nil {
		t.Fatal(err)
	}
	wantHeld(t, x, targetOf(x), "prove-self-free", holders.FD, os.Getpid())
	target := targetOf(x)
	target.Handles = []Handle{{Name: "the repository", Closer: f}}
	report, err := (&Pipeline{Stages: DiskStages()}).Run(t.Context(), target, nil)
	if err != nil || !report.Released {
		t.Fatal(err)
	}
}

func TestFrozenBeforehand(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		targettest.Hold(t, "freeze", x.Dir).Stop()
		wantHeld(t, x, targetOf(x), "remount-read-only", holders.Frozen, 0)
		if out, err := exec.Command("fsfreeze", "--unfreeze", x.Dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		release(t, x)
	}
}

// TestHeldIsLeftAsItWas has flags of a mount and of a superblock, which a release that fails late
// must restore.
func TestHeldIsLeftAsItWas(t *testing.T) {
	for _, fs := range targettest.Filesystems() {
		x := targettest.New(t, fs)
		socket := targettest.Hold(t, "socket", x.Path("dir"))
		for _, options := range []string{"remount,sync,lazytime", "remount,bind,ro", "remount,bind,rw,nosuid,nodev,noexec,noatime", "remount,bind,ro,strictatime"} {
			kit.Run(t, "mount", "-o", options, x.Dir)
			held := wantHeld(t, x, targetOf(x), "prove-no-holders", holders.UnixSocket, socket.PID)
			if held == nil {
				t.Errorf("%s, %s: not held", fs, options)
			}
		}
		socket.Stop()
		release(t, x)
	}
}
