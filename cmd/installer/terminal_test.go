package main

import (
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"installer/disk"
	"installer/finalize"
	"installer/install"

	"github.com/sirupsen/logrus"
)

func TestFold(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"short\n", 20, "short\n"},
		{"  label     one two three four\n", 24, "  label     one two\n            three four\n"},
		{"  label     0123456789abcdef\n", 24, "  label     0123456789ab\n            cdef\n"},
		{"one two three four five\n", 12, "one two\n    three\n    four\n    five\n"},
		{"  a very long label that takes all  value\n", 20, "a very long\n    label that takes\n    all value\n"},
	} {
		got := fold(c.text, c.width)
		if got != c.want {
			t.Errorf("%q at %d: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// eventsOfARun are the events of an installation, with a step of two seconds.
func eventsOfARun() []install.Event {
	begin := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(s float64, e install.Event) install.Event {
		e.Time, e.Step = begin.Add(time.Duration(s*float64(time.Second))), "import"
		return e
	}
	const total = 200 << 20
	return []install.Event{
		at(0, install.Event{Kind: install.EventStep, Title: "Writing the image's content", Index: 8, Count: 12}),
		at(1, install.Event{Kind: install.EventProgress, Done: total / 2, Total: total}),
		at(1.01, install.Event{Kind: install.EventProgress, Done: total/2 + 1, Total: total}),
		at(1.5, install.Event{Kind: install.EventNote, Message: "worth knowing"}),
		at(6, install.Event{Kind: install.EventProgress, Done: total, Total: total}),
		at(6.5, install.Event{Kind: install.EventDone, Title: "Writing the image's content", Seconds: 6.5, Message: strings.Repeat("many files ", 30)}),
		at(7, install.Event{Kind: install.EventStage, Stage: &finalize.StageResult{Name: "trim", Status: finalize.OK, Summary: "trimmed"}}),
		at(7, install.Event{Kind: install.EventFailed, Title: "Releasing", Message: "held"}),
		at(7, install.Event{Kind: install.EventUndo, Message: "closed it"}),
	}
}

// At a terminal no line is longer than it is wide, and the bar has bytes and rate.
func TestTTYPrinter(t *testing.T) {
	for width, want := range map[int]string{
		40:  "[ 8/12] Writing the image's content  50",
		80:  "[ 8/12] Writing the image's content [=====     ]  50% of 200.0 MiB, 100.0 MiB/s",
		200: "[ 8/12] Writing the image's content [====================                    ]  50% of 200.0 MiB, 100.0 MiB/s",
	} {
		var out strings.Builder
		log := logrus.New()
		log.SetOutput(io.Discard)
		p := &ttyPrinter{out: &out, log: log, width: func() int { return width }, colour: true}
		for _, e := range eventsOfARun() {
			p.event(e)
		}
		plain := strings.NewReplacer("\x1b[K", "", "\x1b[32m", "", "\x1b[31m", "", "\x1b[0m", "").Replace(out.String())
		for _, line := range strings.FieldsFunc(plain, func(r rune) bool { return r == '\r' || r == '\n' }) {
			if n := utf8.RuneCountInString(line); n >= width {
				t.Errorf("%d columns at a terminal of %d: %q", n, width, line)
			}
		}
		if !strings.Contains(plain, "\r"+want) || strings.Count(plain, " 50") != 1 || strings.Contains(plain, "\x1b") {
			t.Errorf("at %d: %q", width, plain)
		}
	}
}

// In a pipe there are lines, no escape codes, and progress every five seconds at most.
func TestPlainPrinter(t *testing.T) {
	var out strings.Builder
	log := newLogger(&out, false, true)
	p := &plainPrinter{out: &out, log: log}
	for _, e := range eventsOfARun() {
		p.event(e)
	}
	want := "[ 8/12] Writing the image's content\nnote: worth knowing\n        100% of 200.0 MiB, 33.3 MiB/s\n        done in 6.5 s: " +
		strings.Repeat("many files ", 30) + "\ntrim: ok: trimmed\nundo: closed it\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestLineFormatter(t *testing.T) {
	narrow, err := lineFormatter{width: func() int { return 12 }}.Format(&logrus.Entry{Level: logrus.InfoLevel, Message: "one two three"})
	if err != nil || string(narrow) != "note:\n    one two\n    three\n" {
		t.Errorf("folded: %q, %v", narrow, err)
	}
	for _, c := range []struct {
		level   logrus.Level
		message string
		want    string
	}{
		{logrus.InfoLevel, "x", "note: x\n"}, {logrus.WarnLevel, "x", "\x1b[33mwarning: x\x1b[0m\n"},
		{logrus.WarnLevel, "undo: x", "\x1b[33mundo: x\x1b[0m\n"}, {logrus.DebugLevel, "x", "x\n"},
	} {
		got, err := lineFormatter{colour: true}.Format(&logrus.Entry{Level: c.level, Message: c.message})
		if err != nil || string(got) != c.want {
			t.Errorf("%v: %q, %v", c.level, got, err)
		}
	}
}

// The question names the disk so that it cannot be taken for another.
func TestPlanNamesTheDisk(t *testing.T) {
	var out strings.Builder
	writePlan(&out, &install.Plan{Device: "/dev/vda", Model: "Virtio Disk", Serial: "S3R1AL", Size: 20 << 30, Filesystem: "xfs",
		Found:      []disk.Found{{Where: "partition 1 (home)", What: "ext4 file system", Size: 5 << 30}},
		Partitions: []disk.Partition{{Number: 1, Name: "root", Start: 1 << 20, Size: 19 << 30}}})
	for _, want := range []string{"/dev/vda: Virtio Disk, serial S3R1AL, 20.0 GiB\n", "WILL BE LOST  partition 1 (home): ext4 file system, 5.0 GiB\n", "partition 1   root           19.0 GiB at 1.0 MiB\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
