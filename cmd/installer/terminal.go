package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"installer/install/printable"

	"github.com/sirupsen/logrus"
	"golang.org/x/term"
)

// usualWidth is the width of a terminal that does not report one.
const usualWidth = 80

// terminal reports whether w is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	if s, isSink := w.(*sink); isSink {
		w = s.Writer
	}
	file, isFile := w.(*os.File)
	return file, isFile && term.IsTerminal(int(file.Fd()))
}

// terminalWidth is how wide a terminal is at this moment.
func terminalWidth(file *os.File) int {
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		return width
	}
	return usualWidth
}

// noColour reports whether colours are unwanted, see no-color.org.
func noColour() bool { return os.Getenv("NO_COLOR") != "" }

// hangingIndent is where a line without a column goes on.
const hangingIndent = 4

// label is how a line of a table begins: its value has a column of its own.
var label = regexp.MustCompile(`^ +\S+(?: \S+)* {2,}`)

// fold breaks lines that are too long for a terminal, and goes on below their
// values. A word that is too long for a line is broken where the line ends.
func fold(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if utf8.RuneCountInString(line) <= width {
			b.WriteString(line + "\n")
			continue
		}
		first := label.FindString(line)
		if len(first) > width/2 {
			first = ""
		}
		indent := max(len(first), hangingIndent)
		for _, part := range wrapHard(line[len(first):], width-indent) {
			b.WriteString(first + part + "\n")
			first = strings.Repeat(" ", indent)
		}
	}
	return b.String()
}

// wrapHard is wrap that breaks long words too.
func wrapHard(text string, width int) []string {
	var lines []string
	for _, line := range wrap(text, width) {
		runes := []rune(line)
		for len(runes) > width {
			lines = append(lines, string(runes[:width]))
			runes = runes[width:]
		}
		lines = append(lines, string(runes))
	}
	return lines
}

// lineFormatter prints notes and warnings, a line each.
type lineFormatter struct {
	colour bool
	width  func() int // of the terminal; nil = there is none, and lines are not folded
}

// Format implements logrus.Formatter.
func (f lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	word, colour := "note: ", ""
	switch {
	case e.Level >= logrus.DebugLevel:
		word = ""
	case e.Level == logrus.WarnLevel && strings.HasPrefix(e.Message, undoPrefix):
		word, colour = "", yellow
	case e.Level <= logrus.WarnLevel:
		word, colour = "warning: ", yellow
	}
	text := word + printable.Line(e.Message)
	if f.width != nil {
		text = strings.TrimSuffix(fold(text, f.width()), "\n")
	}
	if f.colour && colour != "" {
		text = "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	return fmt.Appendln(nil, text), nil
}
