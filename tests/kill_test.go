package tests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The number of points at which the installer is killed, and the seed that chooses them.
const (
	killPointsVariable = "INSTALLER_KILL_POINTS"
	killSeedVariable   = "INSTALLER_KILL_SEED"
)

// runWatched runs the installer with --progress json and calls back with its process at each event.
// It returns when the installer has ended.
func runWatched(t testing.TB, args []string, raw string, see func(p *os.Process, e runEvent)) Result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), BuildInstaller(t), append(slices.Clone(args), "--progress", "json", raw)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDirOf(raw))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(tempDirOf(raw), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		text.WriteString(line)
		if err != nil { // the end; a line that was cut off is none
			break
		}
		see(cmd.Process, parseEvents(t, line)[0])
	}
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return Result{Stdout: text.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// tempDirOf is the TMPDIR of the runs that are watched.
func tempDirOf(raw string) string { return filepath.Join(filepath.Dir(raw), "tmp") }

// Killed at any point the installer leaves nothing: no mount, no loop device, no process, no
// temporary directory with content; and the same command then succeeds.
func TestKill(t *testing.T) {
	adoptOrphans(t)
	points, seed := killPlan(t)
	t.Logf("%d points; repeat them with %s=%d", points, killSeedVariable, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, diskSize)
	args := append(setup{filesystem: "xfs", bootloader: "grub"}.args(t), "--wipe")
	install := func() []runEvent {
		return parseEvents(t, runWatched(t, args, raw, func(*os.Process, runEvent) {}).Must(t).Stdout)
	}
	install() // the first run finds nothing cached, and is no measure of the others
	events := install()
	whole := lastTime(events).Sub(events[0].Time)
	killed := 0
	for i := range points {
		at := killPoint(random, i, events, whole)
		r := runWatched(t, args, raw, at.see)
		switch r.Code {
		case -1:
			killed++
		case 0: // it was done before
		default:
			t.Errorf("exit status %d, want death by a signal\n%s", r.Code, r.Stderr)
		}
		nothingLeft(t, dir)
		emptyBut(t, dir, "disk.raw", "tmp")
		emptyBut(t, tempDirOf(raw))
		if t.Failed() {
			t.Fatalf("killed %s", at)
		}
		if i%8 == 7 || i == points-1 { // each next point begins on the leftovers of a killed run, too
			again := install()
			// A machine that others use is faster at one time than at another.
			whole = min(whole, lastTime(again).Sub(again[0].Time))
		}
	}
	if killed < points/2 {
		t.Errorf("only %d of %d points came before the end", killed, points)
	}
	FsckAll(t, raw, "xfs")
	OstreeChecks(t, MountRootReadOnly(t, raw))
}

func lastTime(events []runEvent) time.Time {
	var last time.Time
	for _, e := range events {
		if e.Time.After(last) {
			last = e.Time
		}
	}
	return last
}

func killPlan(t *testing.T) (points int, seed uint64) {
	t.Helper()
	points, seed = 12, 20250101
	if s := os.Getenv(killPointsVariable); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		points = n
	}
	if s := os.Getenv(killSeedVariable); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		seed = n
	}
	if points < 1 {
		t.Fatalf("%s: %d points show nothing", killPointsVariable, points)
	}
	return points, seed
}

// emptyBut wants nothing but these names in a directory.
func emptyBut(t testing.TB, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

// A person who presses Ctrl-C, or an init system that stops the job, gets everything back, and a
// line for each thing.
func TestInterrupt(t *testing.T) {
	adoptOrphans(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, step := range []string{"format", "import", "boot-loader"} {
			t.Run(fmt.Sprintf("%s in %s", signal, step), func(t *testing.T) {
				dir := t.TempDir()
				raw := filepath.Join(dir, "disk.raw")
				makeRaw(t, raw, diskSize)
				r := runWatched(t, setup{filesystem: "xfs", bootloader: "grub"}.args(t), raw, func(p *os.Process, e runEvent) {
					if e.Event == "step" && e.Step == step {
						must(t, p.Signal(signal))
					}
				})
				if r.Code != 1 || !strings.Contains(r.Stderr, "interrupted: received "+signal.String()) {
					t.Errorf("exit status %d, want 1 and the signal named: %s", r.Code, r.Stderr)
				}
				undone := map[string]bool{}
				for _, e := range parseEvents(t, r.Stdout) {
					if e.Event == "undo" {
						undone[e.Message] = true
						if strings.Contains(e.Message, "failed") {
							t.Errorf("undo: %s", e.Message)
						}
					}
				}
				if !undone["gave up the claim on "+raw] || !undone["unmounted the workspace "+workspaceDir] {
					t.Errorf("undone: %v", undone)
				}
				nothingLeft(t, dir)
				emptyBut(t, dir, "disk.raw", "tmp")
			})
		}
	}
}
