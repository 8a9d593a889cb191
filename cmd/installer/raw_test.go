package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"installer/disk"
	"installer/finalize"
	"installer/finalize/holders"
	"installer/install"
	"installer/install/verify"
	"installer/install/vm"

	"github.com/sirupsen/logrus"
)

// evil is a name as an image, a path or a program may choose it: control sequences of both kinds, a
// change of direction, no UTF-8, and a line that pretends to be ours.
const evil = "x\x1b[2J\x1b]0;t\a\u009b31m\x9b\u202e\u2066\xff\r\ninstaller: error: forged\n"

// evilReport is a report whose texts are all of others.
func evilReport() *install.Report {
	return &install.Report{Outcome: install.Complete, Source: install.SourceReport{Reference: evil, Digest: evil},
		Disk:       install.DiskReport{Path: evil, RootUUID: evil, Mounted: []install.MountedFilesystem{{Role: evil, Type: evil, Device: evil, MountPoint: evil}}},
		Deployment: install.DeploymentReport{Path: evil, Kernel: evil}, Finalize: &finalize.Report{Stages: []finalize.StageResult{{Name: evil}}},
		Plan: &install.Plan{Device: evil, Model: evil, Serial: evil, Source: evil, Target: evil, Kargs: []string{evil}, Config: []string{evil},
			Found: []disk.Found{{Where: evil, What: evil}}, Partitions: []disk.Partition{{Name: evil}}, BoundImages: []install.BoundImage{{Name: evil, Digest: evil}},
			Mounted: []install.MountedFilesystem{{Role: evil, Type: evil, Device: evil, MountPoint: evil}}}}
}

// Nothing that others chose reaches a terminal or a log as it is.
func TestNothingRawReachesTheTerminal(t *testing.T) {
	events := func(p printer) {
		for _, kind := range []install.EventKind{install.EventStep, install.EventDone, install.EventNote, install.EventStage, install.EventFailed, install.EventUndo} {
			p.event(install.Event{Time: time.Now(), Kind: kind, Title: evil, Message: evil, Stage: &finalize.StageResult{Name: evil, Summary: evil, Status: evil}})
		}
		p.summary(evilReport())
	}
	log := func(w io.Writer) *logrus.Logger { return newLogger(w, false, true) }
	for name, write := range map[string]func(io.Writer){
		"summary": func(w io.Writer) { writeSummary(w, evilReport()) },
		"plan":    func(w io.Writer) { writePlan(w, evilReport().Plan) },
		"machine": func(w io.Writer) {
			writeMachine(w, &vm.Report{Report: *evilReport(), Machine: vm.MachineReport{Format: evil, Accel: evil, Phases: []vm.PhaseTime{{Phase: evil}}}})
		},
		"check": func(w io.Writer) {
			printCheck(w, verify.Check{Title: evil, Detail: evil}, []verify.Finding{{Where: evil, What: evil, Remedy: evil, Severity: evil}})
		},
		"holders": func(w io.Writer) {
			r := holders.Report{Verdict: evil, Unreadable: []string{evil}, Holders: []holders.Holder{{Class: holders.FD, PID: 7, Comm: evil, Path: evil, Evidence: evil, Namespace: evil, Remedy: evil}}}
			if err := writeHolders(w, evil, r, true); err != nil {
				t.Error(err)
			}
		},
		"plain": func(w io.Writer) { events(&plainPrinter{out: w, log: log(w)}) },
		"terminal": func(w io.Writer) {
			events(&ttyPrinter{out: &strip{w}, log: log(w), width: func() int { return 2000 }})
		},
		"error": func(w io.Writer) {
			cmd := newRootCommand(io.Discard, io.Discard)
			writeError(w, cmd, &advisedError{errors.Join(errors.New(evil), errors.New(evil)), evil})
		},
	} {
		var out strings.Builder
		write(&out)
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
				t.Errorf("%s: %q is raw", name, line)
			}
			if name != "error" && strings.HasPrefix(line, "installer: ") {
				t.Errorf("%s: a line is forged: %q", name, line)
			}
		}
		if name == "error" && strings.Count(out.String(), "\ninstaller: error: ") != 1 {
			t.Errorf("error: a line is forged: %q", out.String())
		}
	}
}

// strip takes out the control sequences with which the progress at a terminal replaces its own line.
type strip struct{ io.Writer }

func (s *strip) Write(p []byte) (int, error) {
	_, err := io.WriteString(s.Writer, strings.ReplaceAll(string(p), "\r\x1b[K", ""))
	return len(p), err
}
