package main

import (
	"strings"
	"testing"

	"installer/finalize/holders"
)

// crowded is a report of a disk with many holders.
func crowded() holders.Report {
	r := holders.Report{Verdict: holders.Held, Processes: 1, Namespaces: 2}
	for pid := range 3000 {
		r.Holders = append(r.Holders, holders.Holder{Class: holders.FD, PID: pid + 1, TID: pid + 1, Comm: "x", Path: "/mnt/file",
			Evidence: "/proc/…", Remedy: "close this file descriptor, or end the process"})
	}
	r.Holders = append(r.Holders, holders.Holder{Class: holders.MountClass, Path: "/mnt", Evidence: "mountinfo: …", Remedy: "unmount /mnt"})
	return r
}

// A report begins with a summary by class, and says what to do once, however many holders there
// are.
func TestHoldersSummary(t *testing.T) {
	var b strings.Builder
	if err := writeHolders(&b, "/dev/vda", crowded(), false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if want := "/dev/vda: held by 3001 holders (3000 fd, 1 mount)"; lines[0] != want {
		t.Errorf("it begins with %q, want %q", lines[0], want)
	}
	if want := "searched: 1 process, 2 mount namespaces"; lines[1] != want {
		t.Errorf("then %q, want %q", lines[1], want)
	}
	if n := strings.Count(b.String(), "close this file descriptor"); n != 1 {
		t.Errorf("the remedy stands there %d times", n)
	}
	if !strings.Contains(b.String(), "and 2980 more") || len(lines) > 60 {
		t.Errorf("%d lines", len(lines))
	}
	b.Reset()
	if err := writeHolders(&b, "/dev/vda", crowded(), true); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "process "); n < 3000 || strings.Contains(b.String(), " more") {
		t.Errorf("--verbose lists %d processes", n)
	}
}

// The last line says what was not seen, and how to see it, by the kinds that the search reports.
func TestHoldersBlindVerdicts(t *testing.T) {
	container := []holders.Unseen{{Spot: holders.OtherPIDNamespaces, Subject: "processes of the host", Count: 1}}
	process := []holders.Unseen{{Spot: holders.Processes, Subject: "fd of /proc/1", Count: 7, Processes: []int{1}}}
	for _, c := range []struct {
		report       holders.Report
		status       int
		says, advice string
	}{
		{holders.Report{Verdict: holders.Free, Unseen: container}, 0, "", ""},
		{holders.Report{Verdict: holders.Unknown, Unseen: container}, 1, "no holder was found; not seen: processes outside of this PID namespace", "--pid=host"},
		{holders.Report{Verdict: holders.Unknown, Unseen: container, Probed: holders.IsReferenced}, 1, "the kernel counts references to it; not seen: processes outside", "--pid=host"},
		{holders.Report{Verdict: holders.Unknown, Unseen: process}, 1, "not seen: files, mappings or directories of process 1", "all capabilities"},
		{holders.Report{Verdict: holders.Held, Unseen: container, Holders: []holders.Holder{{Class: holders.FD}}}, 3, "held by 1 holder (1 fd); not seen: processes outside of this PID namespace", ""},
		{holders.Report{Verdict: holders.Held, Holders: []holders.Holder{{Class: holders.FD}}}, 3, "/mnt is held by 1 holder (1 fd)", ""},
		{holders.Report{Verdict: holders.KernelHeld, Holders: []holders.Holder{{Class: holders.Kernel}}}, 3, "by the kernel alone", ""},
	} {
		err := verdictError("/mnt", c.report)
		if got := exitStatus(err); got != c.status {
			t.Errorf("%v: exit status %d, want %d", err, got, c.status)
		}
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), c.says) || !strings.Contains(advice(err), c.advice) || c.advice == "" && advice(err) != "" {
			t.Errorf("%q, to do %q; want %q, %q", err, advice(err), c.says, c.advice)
		}
	}
}

// What a process and a path are called cannot reach the terminal as it stands.
func TestHoldersArePrintable(t *testing.T) {
	r := holders.Report{Verdict: holders.Held, Holders: []holders.Holder{{Class: holders.FD, PID: 1, Comm: "\x1b[2J", Path: "a\nb\x1b", Evidence: "\x07"}}}
	var b strings.Builder
	if err := writeHolders(&b, "\x1bp", r, true); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") || strings.Contains(b.String(), "a\nb") {
		t.Errorf("%q", b.String())
	}
}
