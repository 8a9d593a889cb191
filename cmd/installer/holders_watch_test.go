package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"installer/finalize/holders"
)

// A watch prints a line for each holder that comes or goes, and ends when the target is free that was
// held.
func TestHoldersWatch(t *testing.T) {
	fd := holders.Holder{Class: holders.FD, PID: 7, TID: 7, Comm: "sh", Path: "/mnt/file", Evidence: "a"}
	again := fd
	again.Evidence = "b" // the evidence may change
	cwd := holders.Holder{Class: holders.Cwd, HostPID: 9, Comm: "x", Path: "/mnt"}
	reports := []holders.Report{
		{Verdict: holders.Free}, {Verdict: holders.Free}, {Verdict: holders.Held, Holders: []holders.Holder{fd}},
		{Verdict: holders.Held, Holders: []holders.Holder{again, cwd}}, {Verdict: holders.Held, Holders: []holders.Holder{cwd}}, {Verdict: holders.Free},
	}
	for _, asJSON := range []bool{false, true} {
		var b strings.Builder
		w := &watcher{path: "/mnt", flags: holdersFlags{json: asJSON}, out: &b}
		for i, r := range reports {
			more, err := w.visit(r)
			if err != nil || more != (i < len(reports)-1) {
				t.Fatalf("report %d: %v, %v", i, more, err)
			}
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			if asJSON {
				var e watchEvent
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time.IsZero() {
					t.Fatalf("%v: %s", err, line)
				}
				if line = e.Event; e.Holder != nil {
					line += " " + string(e.Holder.Class) + ": " + holderRow(*e.Holder)
				}
			} else {
				line = regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} `).ReplaceAllString(strings.TrimSpace(line), "")
			}
			got = append(got, line)
		}
		want := []string{
			"free", "holds fd: process 7 (sh) /mnt/file", "holds cwd: process 9 outside of this PID namespace (x) /mnt",
			"gone fd: process 7 (sh) /mnt/file", "gone cwd: process 9 outside of this PID namespace (x) /mnt", "free",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A watch has no report.
func TestHoldersWatchReport(t *testing.T) {
	cmd := newHoldersCommand(&strings.Builder{})
	cmd.SetArgs([]string{"--watch", "--report", "file.json", t.TempDir()})
	if err := cmd.Execute(); exitStatus(err) != exitUsage {
		t.Errorf("%v", err)
	}
}
