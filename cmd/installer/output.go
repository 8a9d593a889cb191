package main

import (
	"encoding/json"
	"errors"
	"io"

	"installer/install"
	"installer/install/outfile"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
)

// outputFlags are the flags of every command that shows progress.
type outputFlags struct {
	progress string
	quiet    bool
	verbose  bool
	report   string
}

func (f *outputFlags) addTo(flags *pflag.FlagSet) {
	reportFlag().text(flags, &f.report)
	flag{name: "progress", group: groupOutput, value: "KIND", choices: []string{"auto", "plain", "tty", "json"}, initial: "auto", brief: "progress",
		detail: "How progress is shown: lines, a bar at a terminal, or one JSON object a line (installer schema event)."}.text(flags, &f.progress)
	flag{name: "verbose", short: "v", group: groupOutput, brief: "show more, and the causes of an error",
		detail: "The evidence of each stage of the release, as it comes; of an error, its details and the chain of its causes."}.toggle(flags, &f.verbose)
	quietFlag().toggle(flags, &f.quiet)
}

func reportFlag() flag {
	return flag{name: "report", group: groupOutput, value: "FILE", brief: "write the evidence, as JSON or .html",
		detail: "The evidence of every step and stage. A file named .html becomes a page for people, any other JSON (installer schema report). " +
			"An existing file is replaced only if it is empty or an earlier report."}
}

func quietFlag() flag {
	return flag{name: "quiet", short: "q", group: groupOutput, brief: "show errors only"}
}

func jsonFlag() flag {
	return flag{name: "json", group: groupOutput, brief: "print one JSON object"}
}

// printer shows the events of a run, and its end.
type printer interface {
	event(install.Event)
	summary(*install.Report)
}

// output is where a run is shown: its printer, and the file for its report.
type output struct {
	printer printer
	report  *reportFile
}

// open chooses the printer, and makes the report's file: one that cannot be
// written is better known before the disk is.
func (f *outputFlags) open(stdout, stderr io.Writer, guard *outfile.Guard) (*output, error) {
	if f.quiet && f.verbose {
		return nil, &usageError{errors.New("--quiet and --verbose exclude each other")}
	}
	report := &reportFile{path: f.report}
	if err := report.open(guard); err != nil {
		return nil, err
	}
	log := newLogger(stderr, f.quiet, f.verbose)
	var p printer
	file, isTerminal := terminal(stdout)
	switch mode := f.progress; {
	case mode == "json":
		p = &jsonPrinter{out: json.NewEncoder(stdout)}
	case f.quiet:
		p = &quietPrinter{log: log}
	case mode == "tty" || mode == "auto" && isTerminal:
		p = newTTYPrinter(stdout, log, file, isTerminal)
	default:
		p = &plainPrinter{out: stdout, log: log}
	}
	return &output{printer: p, report: report}, nil
}

// event shows an event.
func (o *output) event(e install.Event) { o.printer.event(e) }

// finish shows the end of a run and writes its report.
func (o *output) finish(r *install.Report) error {
	if err := o.report.write(r); err != nil {
		return err
	}
	o.printer.summary(r)
	return nil
}

// newLogger makes the logger of notes and warnings beside the progress.
func newLogger(stderr io.Writer, quiet, verbose bool) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(stderr)
	format := lineFormatter{}
	if file, isTerminal := terminal(stderr); isTerminal {
		format.colour, format.width = !noColour(), func() int { return terminalWidth(file) }
	}
	log.SetFormatter(format)
	switch {
	case quiet:
		log.SetLevel(logrus.ErrorLevel)
	case verbose:
		log.SetLevel(logrus.DebugLevel)
	}
	// The image libraries speak through the package's own logger, some of it to no purpose.
	logrus.SetOutput(stderr)
	logrus.SetFormatter(log.Formatter)
	logrus.SetLevel(min(log.Level, logrus.WarnLevel))
	return log
}
