package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminalOf opens a pseudo-terminal of a width; see pts(4).
func terminalOf(t *testing.T, columns uint16) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { ours.Close() })
	fd := int(ours.Fd())
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns}))
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

// record runs the installer at a terminal and returns the screen.
func record(t *testing.T, columns uint16, typed string, env []string, args ...string) (shown string, status int) {
	t.Helper()
	ours, theirs := terminalOf(t, columns)
	cmd := exec.CommandContext(t.Context(), BuildInstaller(t), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	must(t, theirs.Close())
	_, err := ours.WriteString(typed)
	must(t, err)
	var out bytes.Buffer
	if _, err := io.Copy(&out, ours); err != nil && !errors.Is(err, syscall.EIO) { // the error after the last one closed it
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit status is checked below
	return out.String(), cmd.ProcessState.ExitCode()
}

var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// shortDir is a directory whose path leaves room on a line of 80 columns, wherever TMPDIR is.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "installer-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// checkWidth fails for a line that is longer than the terminal.
func checkWidth(t *testing.T, shown string, columns int) {
	t.Helper()
	plain := strings.ReplaceAll(colours.ReplaceAllString(shown, ""), "\x1b[K", "")
	for _, line := range strings.FieldsFunc(plain, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if n := utf8.RuneCountInString(line); n > columns {
			t.Errorf("%d columns at a terminal of %d: %q", n, columns, line)
		}
	}
	if strings.Contains(plain, "\x1b") {
		t.Errorf("another escape code than those of a line and its colours: %q", plain)
	}
}

// At a terminal, whatever its width, no line is longer; in colour, unless NO_COLOR says otherwise.
func TestTerminalWidths(t *testing.T) {
	for _, c := range []struct {
		columns uint16
		env     []string
		colours bool
	}{{80, []string{"NO_COLOR="}, true}, {200, []string{"NO_COLOR="}, true}, {80, []string{"NO_COLOR=1"}, false}} {
		raw := filepath.Join(shortDir(t), "disk.raw")
		makeRaw(t, raw, tinySize)
		shown, status := record(t, c.columns, "", c.env, installArgs(TinyImage(t), raw)...)
		checkWidth(t, shown, int(c.columns))
		if status != 0 || !strings.Contains(shown, "Installation complete: ") || colours.MatchString(shown) != c.colours || !strings.Contains(shown, "\r\x1b[K") {
			t.Errorf("at %d with %q: exit status %d\n%q", c.columns, c.env, status, shown)
		}
	}
}

// In a pipe there is no escape code and no line that is drawn over: two lines a step, and the summary.
func TestPipe(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	r := Run(t, installArgs(TinyImage(t), raw, "-v")...).Must(t)
	if all := r.Stdout + r.Stderr; strings.ContainsAny(all, "\x1b\r") {
		t.Errorf("%q", all)
	}
	if n := strings.Count(r.Stdout, "\n"); n > 45 {
		t.Errorf("%d lines:\n%s", n, r.Stdout)
	}
}

// Before a device is overwritten, a person sees its name and its content.
func TestConfirmationShowsTheDevice(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	mustCommand(t, "sgdisk", "-n", "1:0:+300M", "-c", "1:precious", raw)
	mustCommand(t, "mkfs.ext4", "-q", "-E", "offset=1048576", raw, "300M")
	device := loopDevice(t, raw)
	shown, status := record(t, 80, "no\n", []string{"NO_COLOR=1"}, "to-disk", "--source-imgref", TinyImage(t), "--bootloader", "none", "--wipe", device)
	checkWidth(t, shown[:strings.Index(shown, "undo: ")], 80)
	for _, want := range []string{device + ": ", "1.0 GiB", "GPT partition table", "partition 1 (precious): ext", "300.0 MiB", "Type yes to overwrite " + device, "not confirmed: nothing was written"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown:\n%s", want, shown)
		}
	}
	if status != 1 {
		t.Errorf("exit status %d", status)
	}
}
