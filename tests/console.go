package tests

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Phase is how far a boot has come, by its serial console.
type Phase int

// The phases of a boot, in order. Each ends with the line of the console that begins the next.
const (
	PhaseFirmware Phase = iota // firmware and boot loader
	PhaseKernel                // the kernel, until it starts the initramfs
	PhaseInit                  // the initramfs, until it switches to the root file system
	PhaseTarget                // the system, until the self-test's first line
	PhaseReport                // the self-test's report
	PhaseOff                   // shutting down, until QEMU ends
)

func (p Phase) String() string {
	return [...]string{"firmware", "kernel", "init", "target", "report", "off"}[p]
}

// markers[p] is in the line with which phase p ends; PhaseOff ends with the process.
var markers = [...]string{
	PhaseFirmware: "Linux version ",
	PhaseKernel:   "Run /init as init process",
	PhaseInit:     "Starting initrd-switch-root.service",
	PhaseTarget:   "SELFTEST ",
	PhaseReport:   "SELFTEST DONE",
}

// fatal are console lines after which no boot goes on by itself.
var fatal = []string{
	"Kernel panic",
	"You are in emergency mode",
	"Entering emergency mode",
	"Press Enter for maintenance",
	"grub rescue>",
	"Minimal BASH-like line editing",
	"No bootable option or device was found",
	"No bootable device",
	"UEFI Interactive Shell",
	"Give root password",
}

// Section is one command of the self-test's report.
type Section struct {
	Status int      // exit status of the command
	Lines  []string // its output, without empty lines
}

// Text is the section's lines as one string.
func (s Section) Text() string { return strings.Join(s.Lines, "\n") }

// consoleReader turns a serial console's bytes into phases and sections as they come.
type consoleReader struct {
	begin    time.Time
	phase    Phase
	reached  map[Phase]time.Duration // when each phase ended, since power-on
	text     strings.Builder         // everything, cleaned of escapes
	partial  string                  // the last line, while it has no end
	sections map[string]Section
	pending  map[string][]string
	fatal    string // the line that ended hope
	damage   string // the first line of the report that is not as it was sent
}

func newConsoleReader(begin time.Time) *consoleReader {
	return &consoleReader{
		begin:    begin,
		reached:  map[Phase]time.Duration{},
		sections: map[string]Section{},
		pending:  map[string][]string{},
	}
}

var escapes = regexp.MustCompile("\x1b(\\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c])|\r|\x00")

// feed takes the next bytes of the console. A line without its end (a prompt) is looked at too.
func (c *consoleReader) feed(b []byte, now time.Time) {
	c.partial += string(b)
	for {
		line, rest, ok := strings.Cut(c.partial, "\n")
		if !ok {
			break
		}
		c.partial = rest
		c.line(escapes.ReplaceAllString(line, ""), now)
	}
	c.lookForFatal(escapes.ReplaceAllString(c.partial, ""))
}

func (c *consoleReader) line(line string, now time.Time) {
	c.text.WriteString(line)
	c.text.WriteByte('\n')
	for p := c.phase; p < PhaseOff; p++ {
		if strings.Contains(line, markers[p]) {
			c.advance(p+1, now)
		}
	}
	c.lookForFatal(line)
	c.report(line)
}

// advance notes the end of every phase before p, also of those whose marker was never seen.
func (c *consoleReader) advance(p Phase, now time.Time) {
	for ; c.phase < p; c.phase++ {
		c.reached[c.phase] = now.Sub(c.begin)
	}
}

func (c *consoleReader) lookForFatal(line string) {
	if c.fatal != "" || strings.HasPrefix(line, "SELFTEST ") {
		return
	}
	for _, f := range fatal {
		if strings.Contains(line, f) {
			c.fatal = strings.TrimSpace(line)
		}
	}
}

var sectionEnd = regexp.MustCompile(`^SELFTEST ([a-z-]+)= (\d+) (\d+)$`)

// report reads one line of the self-test: "SELFTEST name|text" or "SELFTEST name= STATUS COUNT".
func (c *consoleReader) report(line string) {
	rest, ok := strings.CutPrefix(line, "SELFTEST ")
	if !ok || rest == "DONE" {
		return
	}
	if name, text, ok := strings.Cut(rest, "|"); ok && !strings.Contains(name, "=") {
		c.pending[name] = append(c.pending[name], text)
		return
	}
	m := sectionEnd.FindStringSubmatch(line)
	if m == nil {
		c.damaged(line)
		return
	}
	status, _ := strconv.Atoi(m[2]) // the expression lets digits alone through
	count, _ := strconv.Atoi(m[3])
	if len(c.pending[m[1]]) != count {
		c.damaged(fmt.Sprintf("section %s has %d lines, %d were sent", m[1], len(c.pending[m[1]]), count))
		return
	}
	c.sections[m[1]] = Section{Status: status, Lines: c.pending[m[1]]}
}

func (c *consoleReader) damaged(what string) {
	if c.damage == "" {
		c.damage = what
	}
}

// tail is the last n lines of the console.
func (c *consoleReader) tail(n int) string {
	lines := strings.Split(strings.TrimRight(c.text.String()+escapes.ReplaceAllString(c.partial, ""), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
