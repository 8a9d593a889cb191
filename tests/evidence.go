package tests

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Evidence is the report of one boot about itself.
type Evidence struct {
	State       string                  // systemctl is-system-running: "running" when all is well
	Failed      []string                // units that failed
	Cmdline     string                  // the kernel's command line
	Kernel      []string                // kernel messages about file systems and recovery
	PrepareRoot []string                // messages of ostree-prepare-root in the initramfs
	Status      []string                // ostree admin status
	Fsck        Section                 // ostree fsck of the booted repository, unless it was to be left out
	Writable    map[string]bool         // whether it could be written, by directory
	Sections    map[string]Section      // everything that was reported, by name
	Phases      map[Phase]time.Duration // when each phase ended, since power-on
	Console     string                  // the whole console, without escapes
}

// sectionNames are those that every report has.
var sectionNames = []string{
	"state", "failed", "cmdline", "release", "uptime", "kernel", "prepare-root", "mounts", "writable", "errors", "status", "fsck",
}

func (c *consoleReader) evidence() (*Evidence, error) {
	if c.damage != "" {
		return nil, fmt.Errorf("the self-test's report was damaged on the console: %s", c.damage)
	}
	for _, name := range sectionNames {
		if _, ok := c.sections[name]; !ok {
			return nil, fmt.Errorf("the self-test's report has no section %q", name)
		}
	}
	return &Evidence{
		State:       c.sections["state"].Text(),
		Failed:      c.sections["failed"].Lines,
		Cmdline:     c.sections["cmdline"].Text(),
		Kernel:      c.sections["kernel"].Lines,
		PrepareRoot: c.sections["prepare-root"].Lines,
		Status:      c.sections["status"].Lines,
		Fsck:        c.sections["fsck"],
		Writable:    writable(c.sections["writable"].Lines),
		Sections:    c.sections,
		Phases:      c.reached,
		Console:     c.text.String(),
	}, nil
}

func writable(lines []string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lines {
		if dir, mode, ok := strings.Cut(l, " "); ok {
			m[dir] = mode == "rw"
		}
	}
	return m
}

var (
	fileSystem  = regexp.MustCompile(`XFS|EXT4-fs|JBD2|BTRFS|FAT-fs`) // raid6 speaks of recovery too
	recovery    = regexp.MustCompile(`(?i)recover|replay|not cleanly|not properly unmounted|unclean`)
	ioError     = regexp.MustCompile(`(?i)I/O error|corrupt|EXT4-fs error|BTRFS (error|critical)`)
	rootMounted = regexp.MustCompile(`XFS \(\S+\): Ending clean mount|EXT4-fs \(\S+\): mounted filesystem|BTRFS info.*(disk space caching|using free space tree|using crc32c|checksum algorithm)`)
	brief       = regexp.MustCompile(`\binstaller\.selftest=`) // the self-test leaves ostree fsck out
	booted      = regexp.MustCompile(`(?m)^\* \S+ [0-9a-f]{64}\.\d+`)
)

// Problems lists everything that is not as it must be on the first boot of an installed disk; none
// is the pass. It judges the facts that any such disk must show, whatever the file system and the
// boot loader.
func (e *Evidence) Problems() []string {
	var bad []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	check(e.State == "running", "system state is %q, want running", e.State)
	check(len(e.Failed) == 0, "failed units: %v", e.Failed)
	check(slices.ContainsFunc(e.Kernel, rootMounted.MatchString), "the kernel logged no clean mount of the root: %q", e.Kernel)
	for _, l := range e.Kernel {
		check(!(fileSystem.MatchString(l) && recovery.MatchString(l)), "the first mount was not clean: %s", l)
		check(!ioError.MatchString(l), "the kernel logged an error: %s", l)
	}
	check(strings.Contains(strings.Join(e.PrepareRoot, "\n"), "Resolved OSTree target to: /sysroot/ostree/deploy/"),
		"ostree-prepare-root did not resolve a deployment: %q", e.PrepareRoot)
	check(e.Sections["status"].Status == 0 && booted.MatchString(strings.Join(e.Status, "\n")),
		"ostree admin status shows no booted deployment: %q", e.Status)
	sound := "no errors found"
	if brief.MatchString(e.Cmdline) {
		sound = "left out"
	}
	check(e.Fsck.Status == 0 && strings.Contains(e.Fsck.Text(), sound), "ostree fsck: %s", e.Fsck.Text())
	return append(bad, e.writableProblems()...)
}

func (e *Evidence) writableProblems() []string {
	want := map[string]bool{"/": false, "/usr": false, "/sysroot": false, "/etc": true, "/var": true, "/tmp": true}
	var bad []string
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		if got, ok := e.Writable[dir]; !ok || got != want[dir] {
			bad = append(bad, fmt.Sprintf("%s: writable is %v (reported: %v), want %v", dir, got, ok, want[dir]))
		}
	}
	return bad
}

// String is the evidence for a person to read.
func (e *Evidence) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "state        %s, %d failed units\n", e.State, len(e.Failed))
	for _, l := range e.Kernel {
		fmt.Fprintf(&b, "kernel       %s\n", l)
	}
	for _, l := range e.PrepareRoot {
		if strings.Contains(l, "Resolved") {
			fmt.Fprintf(&b, "initramfs    %s\n", l)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(e.Writable)) {
		mode := "read-only"
		if e.Writable[dir] {
			mode = "writable"
		}
		fmt.Fprintf(&b, "mode         %s %s\n", dir, mode)
	}
	for _, l := range e.Status {
		fmt.Fprintf(&b, "status       %s\n", l)
	}
	for _, l := range e.Fsck.Lines {
		fmt.Fprintf(&b, "fsck         %s\n", l)
	}
	for p := PhaseFirmware; p <= PhaseOff; p++ {
		fmt.Fprintf(&b, "time         %-9s ended after %5.1f s\n", p, e.Phases[p].Seconds())
	}
	return b.String()
}
