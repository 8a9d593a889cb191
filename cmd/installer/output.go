package main

import (
	"encoding/json"
	"fmt"
	"io"

	"installer/install"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
)

// outputFlags are the flags of every command that shows progress.
type outputFlags struct {
	progress string
	quiet    bool
	verbose  bool
	report   string
}

func (f *outputFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.report, "report", "", "write the evidence, as JSON or .html\n"+
		"What every step and stage did and saw. A file named .html becomes a page for people, any other JSON (installer schema report).")
	flags.StringVar(&f.progress, "progress", "auto", "auto (default), plain, tty or json\n"+
		"How progress is shown: lines, a bar at a terminal, or one JSON object a line (installer schema event).")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show more, and the causes of an error\n"+
		"What each stage of the release saw, as it comes; of an error, the chain of its causes.")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "show errors only")
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

// open chooses the printer, and tries the report's place: one that cannot be
// written is better known before the disk is.
func (f *outputFlags) open(stdout, stderr io.Writer) (*output, error) {
	if f.quiet && f.verbose {
		return nil, fmt.Errorf("--quiet and --verbose exclude each other")
	}
	log := newLogger(stderr, f.quiet, f.verbose)
	var p printer
	file, isTerminal := terminal(stdout)
	switch mode := f.progress; {
	case mode == "json":
		p = &jsonPrinter{out: json.NewEncoder(stdout)}
	case mode != "auto" && mode != "plain" && mode != "tty":
		return nil, fmt.Errorf("--progress: unknown kind %q: one of auto, plain, tty, json", mode)
	case f.quiet:
		p = &quietPrinter{log: log}
	case mode == "tty" || mode == "auto" && isTerminal:
		p = newTTYPrinter(stdout, log, file, isTerminal)
	default:
		p = &plainPrinter{out: stdout, log: log}
	}
	report := &reportFile{path: f.report}
	return &output{printer: p, report: report}, report.check()
}

// event tells the printer.
func (o *output) event(e install.Event) { o.printer.event(e) }

// finish shows the end of a run and writes its report.
func (o *output) finish(r *install.Report) error {
	if err := o.report.write(r); err != nil {
		return err
	}
	o.printer.summary(r)
	return nil
}

// newLogger makes the logger for what is said beside the progress.
func newLogger(stderr io.Writer, quiet, verbose bool) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(stderr)
	_, isTerminal := terminal(stderr)
	log.SetFormatter(lineFormatter{colour: isTerminal && !noColour()})
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
