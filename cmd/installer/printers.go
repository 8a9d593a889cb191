package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"installer/install"
	"installer/install/printable"

	"github.com/sirupsen/logrus"
)

// jsonPrinter prints each event, and in the end the report, as one JSON object on a line.
type jsonPrinter struct {
	out  *json.Encoder
	pace pace
}

func (p *jsonPrinter) event(e install.Event) {
	if e.Kind == install.EventProgress && !p.pace.due(e, time.Second) {
		return
	}
	// A reader that went away must not stop an installation half-way.
	_ = p.out.Encode(e)
}

func (p *jsonPrinter) summary(r *install.Report) {
	_ = p.out.Encode(struct {
		Kind   string          `json:"event"`
		Report *install.Report `json:"report"`
	}{"report", r})
}

// quietPrinter leaves everything to the error message and the exit status.
type quietPrinter struct{ log *logrus.Logger }

func (p *quietPrinter) event(install.Event)     {}
func (p *quietPrinter) summary(*install.Report) {}

// plainPrinter prints lines, for pipes and logs.
type plainPrinter struct {
	out   io.Writer
	log   *logrus.Logger
	pace  pace
	begun time.Time // the step
}

func (p *plainPrinter) event(e install.Event) {
	switch e.Kind {
	case install.EventStep:
		p.pace.last, p.begun = e.Time, e.Time
		printable.Fprintf(p.out, "[%2d/%d] %s\n", e.Index, e.Count, e.Title)
	case install.EventProgress:
		if p.pace.due(e, 5*time.Second) {
			printable.Fprintf(p.out, "        %s\n", progressText(e, p.begun))
		}
	case install.EventDone:
		printable.Fprintf(p.out, "        %s\n", doneText(e))
	default:
		logEvent(p.log, e)
	}
}

func (p *plainPrinter) summary(r *install.Report) { writeSummary(p.out, r) }

// ttyPrinter keeps one line for the step under way, with a bar.
type ttyPrinter struct {
	out    io.Writer
	log    *logrus.Logger
	width  func() int
	colour bool
	pace   pace
	title  string
	begun  time.Time // the step
}

// newTTYPrinter draws on out, and asks the terminal how wide it is each time:
// people make windows larger. Without a terminal (--progress tty) it is a usual one.
func newTTYPrinter(out io.Writer, log *logrus.Logger, file *os.File, isTerminal bool) *ttyPrinter {
	p := &ttyPrinter{out: out, log: log, width: func() int { return usualWidth }, colour: !noColour()}
	if isTerminal {
		p.width = func() int { return terminalWidth(file) }
	}
	return p
}

func (p *ttyPrinter) event(e install.Event) {
	switch e.Kind {
	case install.EventStep:
		p.title, p.begun = printable.Sprintf("[%2d/%d] %s", e.Index, e.Count, e.Title), e.Time
		p.line(p.title)
	case install.EventProgress:
		if p.pace.due(e, 100*time.Millisecond) {
			p.line(p.progress(e))
		}
	case install.EventDone:
		p.line(p.paint(green, "✓ ") + p.title + ": " + doneText(e))
		fmt.Fprintln(p.out)
	case install.EventFailed:
		p.line(p.paint(red, "✗ ") + p.title)
		fmt.Fprintln(p.out)
	default:
		p.line("")
		logEvent(p.log, e)
	}
}

func (p *ttyPrinter) summary(r *install.Report) {
	fmt.Fprintln(p.out)
	p.show(func(w io.Writer) { writeSummary(w, r) })
}

// show prints the output of write, folded to the terminal.
func (p *ttyPrinter) show(write func(io.Writer)) {
	var b strings.Builder
	write(&b)
	fmt.Fprint(p.out, fold(b.String(), p.width()))
}

// progress is the line of a step under way, with a bar as long as there is room for.
func (p *ttyPrinter) progress(e install.Event) string {
	text := progressText(e, p.begun)
	const frame, longest, shortest = len(" [] "), 40, 4
	room := min(p.width()-1-len(p.title)-len(text)-frame, longest)
	if e.Total <= 0 || room < shortest {
		return p.title + " " + text
	}
	return p.title + " " + bar(e, room) + " " + text
}

// SGR colours of ECMA-48.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (p *ttyPrinter) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// line replaces the terminal's current line.
func (p *ttyPrinter) line(text string) {
	fmt.Fprint(p.out, "\r\x1b[K"+clip(text, p.width()-1))
}

// clip shortens text to a number of columns; escape sequences take none.
func clip(text string, columns int) string {
	var b strings.Builder
	escape := false
	for _, r := range text {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case columns == 0:
			continue
		default:
			columns--
		}
		b.WriteRune(r)
	}
	return b.String()
}

func bar(e install.Event, columns int) string {
	filled := 0
	if e.Total > 0 {
		filled = int(min(e.Done, e.Total) * int64(columns) / e.Total)
	}
	return "[" + strings.Repeat("=", filled) + strings.Repeat(" ", columns-filled) + "]"
}

// progressText says how much of a step is done, and how fast it goes.
func progressText(e install.Event, begun time.Time) string {
	text := install.FormatBytes(e.Done)
	if e.Total > 0 {
		text = fmt.Sprintf("%3d%% of %s", min(e.Done, e.Total)*100/e.Total, install.FormatBytes(e.Total))
	}
	if took := e.Time.Sub(begun).Seconds(); took > 0 && !begun.IsZero() {
		text += fmt.Sprintf(", %s/s", install.FormatBytes(int64(float64(e.Done)/took)))
	}
	return text
}

func doneText(e install.Event) string {
	text := fmt.Sprintf("done in %.1f s", e.Seconds)
	if e.Message != "" {
		text += ": " + printable.Line(e.Message)
	}
	return text
}

// undoPrefix begins a message about a step that was undone.
const undoPrefix = "undo: "

// logEvent logs notes, stages and undone steps.
func logEvent(log *logrus.Logger, e install.Event) {
	switch e.Kind {
	case install.EventNote:
		log.Info(e.Message)
	case install.EventStage:
		log.Debugf("%s: %s: %s", e.Stage.Name, e.Stage.Status, e.Stage.Summary)
	case install.EventUndo:
		log.Warn(undoPrefix + e.Message)
	}
}

// pace bounds how often progress is printed.
type pace struct{ last time.Time }

// due reports whether enough time has passed since the last event that was printed.
func (p *pace) due(e install.Event, every time.Duration) bool {
	if e.Time.Sub(p.last) < every {
		return false
	}
	p.last = e.Time
	return true
}
