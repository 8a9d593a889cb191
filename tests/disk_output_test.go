package tests

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The stages of the finalize pipeline, in the order that the report must show.
var stageNames = []string{"drop-handles", "prove-self-free", "trim", "remount-read-only", "freeze-thaw",
	"prove-no-holders", "unmount", "prove-released", "prove-clean", "detach"}

func TestReportOfSuccess(t *testing.T) {
	for _, s := range hostSetups() {
		d := Installed(t, s)
		r := d.report
		dir, _ := splitRef(CacheImage(t))
		switch {
		case r.Version != 1 || r.Outcome != "complete" || r.Error != "" || len(r.UndoErrors) > 0:
			t.Errorf("version %d, outcome %q, error %q, undo errors %q", r.Version, r.Outcome, r.Error, r.UndoErrors)
		case r.Source.Reference != CacheImage(t) || r.Source.Digest != imageDigest(t, dir):
			t.Errorf("source %+v, want %s with digest %s", r.Source, CacheImage(t), imageDigest(t, dir))
		case r.Disk.Path != d.raw || r.Disk.Size != diskSize || r.Disk.Filesystem != s.filesystem || r.Disk.Bootloader != s.bootloader:
			t.Errorf("disk %+v", r.Disk)
		case r.Deployment.Files < 1000 || r.Deployment.Bytes < 100<<20 || r.Deployment.Kernel == "" || len(r.Deployment.BootChecksum) != 64:
			t.Errorf("deployment %+v", r.Deployment)
		case !slices.Contains(r.Deployment.Kargs, "root=UUID="+r.Disk.RootUUID) || !slices.Contains(r.Deployment.Kargs, "console=ttyS0,115200n8"):
			t.Errorf("kernel arguments %q", r.Deployment.Kargs)
		}
		checkStages(t, r)
		checkSummary(t, d)
	}
}

func imageDigest(t *testing.T, dir string) string {
	t.Helper()
	out := mustCommand(t, "skopeo", "inspect", "--format", "{{.Digest}}", "oci:"+dir)
	return strings.TrimSpace(out)
}

func checkStages(t *testing.T, r runReport) {
	t.Helper()
	if r.Finalize == nil || !r.Finalize.Released {
		t.Fatalf("the report does not say released: %+v", r.Finalize)
	}
	var names []string
	for _, s := range r.Finalize.Stages {
		names = append(names, s.Name)
		if s.Status != "ok" && s.Status != "note" || s.Error != "" || s.Summary == "" || len(s.Evidence) < 3 {
			t.Errorf("stage %+v", s)
		}
		if strings.Contains(s.Summary, "waited") {
			t.Errorf("stage %s waited: %s", s.Name, s.Summary)
		}
	}
	if !slices.Equal(names, stageNames) {
		t.Errorf("stages %q, want %q", names, stageNames)
	}
}

func checkSummary(t *testing.T, d *installed) {
	t.Helper()
	for _, part := range []string{"Installation complete: " + d.raw, d.report.Deployment.Path, d.report.Disk.RootUUID,
		"released", strings.Join(stageNames, ", ")} {
		if !strings.Contains(d.result.Stdout, part) {
			t.Errorf("the output lacks %q:\n%s", part, d.result.Stdout)
		}
	}
}

// A script reads every line as one JSON object: the steps in their order, each stage, and the
// report.
func TestProgressJSON(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	r := Run(t, installArgs(TinyImage(t), raw, "--progress", "json")...).Must(t)
	if r.Stderr != "" {
		t.Errorf("standard error has %q", r.Stderr)
	}
	events := parseEvents(t, r.Stdout)
	count := map[string]int{}
	begun := ""
	for _, e := range events {
		count[e.Event]++
		switch e.Event {
		case "step":
			if begun != "" || e.Title == "" || e.Index != count["step"] {
				t.Errorf("step %+v while %q was under way", e, begun)
			}
			begun = e.Step
		case "done":
			if e.Step != begun {
				t.Errorf("%q is done while %q was under way", e.Step, begun)
			}
			begun = ""
		}
		if e.Event != "report" && e.Time.IsZero() {
			t.Errorf("no time in %+v", e)
		}
	}
	if count["step"] < 10 || count["step"] != count["done"] || count["stage"] != len(stageNames) || count["report"] != 1 {
		t.Errorf("events: %v", count)
	}
	last := events[len(events)-1]
	if last.Event != "report" || last.Report == nil || last.Report.Outcome != "complete" {
		t.Errorf("the last event is %+v", last)
	}
}

// runEvent holds the fields of a line of --progress json that the tests read.
type runEvent struct {
	Time         time.Time
	Event        string
	Step, Title  string
	Index, Count int
	Message      string
	Stage        *struct{ Name, Status string }
	Report       *runReport
}

func parseEvents(t testing.TB, text string) []runEvent {
	t.Helper()
	var events []runEvent
	for line := range strings.Lines(text) {
		decoder := json.NewDecoder(bytes.NewReader([]byte(line)))
		var e runEvent
		if err := decoder.Decode(&e); err != nil || e.Event == "" || decoder.More() {
			t.Fatalf("line %q: %v", line, err)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		t.Fatal("no events")
	}
	return events
}

func TestQuiet(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	r := Run(t, installArgs(TinyImage(t), raw, "--quiet")...).Must(t)
	if r.Stdout != "" || r.Stderr != "" {
		t.Errorf("standard output %q, standard error %q", r.Stdout, r.Stderr)
	}
	// The second time it is refused: the error alone is said, and nothing of success.
	r = Run(t, installArgs(TinyImage(t), raw, "--quiet")...)
	if r.Code != 4 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("exit status %d, standard output %q, standard error %q", r.Code, r.Stdout, r.Stderr)
	}
}

// At a terminal one line is drawn over; script(1) is the terminal.
func TestProgressAtTerminal(t *testing.T) {
	dir := shortDir(t)
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, tinySize)
	command := strings.Join(append([]string{BuildInstaller(t)}, installArgs(TinyImage(t), raw)...), " ")
	r := RunBinary(t, "script", "--quiet", "--return", "--command", command, filepath.Join(dir, "typescript")).Must(t)
	for _, part := range []string{"\r\x1b[K", "✓", "Installation complete: " + raw} {
		if !strings.Contains(r.Stdout, part) {
			t.Errorf("the terminal's output lacks %q:\n%q", part, r.Stdout)
		}
	}
}
