package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"installer/disk"
	"installer/install"

	"golang.org/x/sys/unix"
)

type knows struct {
	error
	advice string
}

func (k knows) Advice() string { return k.advice }

// A remedy comes from the error that knows the operation, and never from an errno.
func TestAdvice(t *testing.T) {
	know := func(advice string) error { return knows{errors.New("x"), advice} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("anything"), ""},
		{unix.ENOSPC, ""}, {unix.EPERM, ""}, {unix.EACCES, ""}, {unix.EROFS, ""}, {unix.ENOENT, ""},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.ENOSPC}, ""},
		{know("inner"), "inner"},
		{&advisedError{know("inner"), "outer"}, "outer"},
		{&advisedError{know("inner"), ""}, ""},
		{errors.Join(know("one"), fmt.Errorf("x: %w", know("two")), know("one")), "one; two"},
		{&usageError{know("one")}, "one"},
		{&notRootError{"mounting needs root"}, "run it with sudo, or in a container with --privileged"},
		{&outputError{unix.ENOSPC}, ""},
		{&reportError{path: "/dev/full", cause: unix.ENOSPC}, "make room in /dev, or name a file elsewhere"},
		{&reportError{path: "/x/r", cause: unix.EROFS}, ""},
		{adviseOnSize(&disk.TooSmallError{}, install.Options{}), "take a larger disk"},
		{adviseOnSize(&disk.TooSmallError{}, install.Options{ViaLoopback: true}), "make the file larger: truncate -s SIZE FILE"},
		{adviseOnSize(unix.ENOSPC, install.Options{}), ""},
		{&transportError{ref: "quay.io/x/y:latest"}, "for an image of a registry give docker://quay.io/x/y:latest; for one of podman's storage, containers-storage:quay.io/x/y:latest"},
		{&transportError{ref: "registry:quay.io/x"}, "for an image of a registry give docker://quay.io/x"},
		{&transportError{ref: "https://quay.io/x"}, "for an image of a registry give docker://quay.io/x"},
		{&transportError{ref: "oci-archvie:x.tar"}, "did you mean oci-archive:x.tar?"},
		{&transportError{ref: "/no/such/path"}, ""},
	} {
		if got := advice(fmt.Errorf("step: %w", c.err)); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

type listed struct{ error }

func (listed) Details() []string { return []string{"first\x1b", "second"} }

// The message of an error is a line for each failure, and a list that it leaves out comes with
// --verbose.
func TestWriteError(t *testing.T) {
	err := errors.Join(fmt.Errorf("step: %w", listed{errors.New("it is in use\ninstaller: error: forged")}), errors.New("second"))
	const head = "installer: error: step: it is in use\\ninstaller: error: forged\ninstaller: error: second\n"
	for line, want := range map[string]string{
		"":   head,
		"-v": head + "  first\\x1b\n  second\n  caused by: ",
	} {
		root := newRootCommand(io.Discard, io.Discard)
		cmd, _, findErr := root.Find([]string{"to-disk"})
		if findErr != nil || cmd.ParseFlags(strings.Fields(line)) != nil {
			t.Fatal("no to-disk")
		}
		var out strings.Builder
		writeError(&out, cmd, err)
		if !strings.HasPrefix(out.String(), want) || line == "" && out.String() != want {
			t.Errorf("%q: %q, want %q", line, out.String(), want)
		}
	}
}

func TestCauses(t *testing.T) {
	inner := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	got := causes(errors.Join(fmt.Errorf("step: %w", inner), errors.New("other")))
	want := []string{"step: open x: file does not exist (*fmt.wrapError)", "open x: file does not exist (*fs.PathError)", "file does not exist (*errors.errorString)", "other (*errors.errorString)"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	var with, without strings.Builder
	args := []string{"to-disk", "--source-imgref", "floppy:x", "y"}
	run(args, io.Discard, &without)
	if run(append(args, "-v"), io.Discard, &with) != exitUsage || !strings.HasPrefix(without.String(), "installer: error: --source-imgref: ") ||
		strings.Contains(without.String(), "caused by") || !strings.Contains(with.String(), "\n  caused by: ") || !strings.HasSuffix(with.String(), "Try 'installer to-disk --help'.\n") {
		t.Errorf("%s%s", with.String(), without.String())
	}
}

// A command line that is no command line is answered in the words of its help.
func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                  "no command given",
		"nonsense":          `there is no command "nonsense"`,
		"to-disk":           "to-disk takes DEVICE, and no argument was given",
		"to-disk a b":       `to-disk takes DEVICE, and 2 arguments were given: ["a" "b"]`,
		"build a":           `build takes IMAGE OUTPUT, and 1 argument was given: "a"`,
		"version x":         `version takes no arguments, and 1 argument was given: "x"`,
		"to-disk --nonsens": "unknown flag: --nonsens",

		"to-dsik":                                          `there is no command "to-dsik" (did you mean "to-disk"?)`,
		"to-disk --wype x":                                 `unknown flag: --wype (did you mean "--wipe"?)`,
		"to-disk --filesystem ext5 x":                      `want xfs, ext4 or btrfs (did you mean "ext4"?)`,
		"to-disk oci:x /dev/vda":                           `2 arguments were given: ["oci:x" "/dev/vda"]; give the image by --source-imgref oci:x`,
		"build disk.qcow2 oci:x":                           `IMAGE "disk.qcow2" is no image, and OUTPUT "oci:x" is one: give the image first`,
		"build quay.io/x y":                                "to do: for an image of a registry give docker://quay.io/x; for one of podman's storage, containers-storage:quay.io/x",
		"to-disk --source-imgref oci: x":                   "--source-imgref: image reference \"oci:\" names no image after \"oci:\"",
		"to-disk --authfile /none --source-imgref oci:x y": "--authfile: open /none: no such file or directory",
		"to-disk --root-ssh-authorized-keys /none --source-imgref oci:x y": "--root-ssh-authorized-keys: open /none: no such file or directory",
	} {
		var out strings.Builder
		if status := run(strings.Fields(line), io.Discard, &out); status != exitUsage || !strings.Contains(out.String(), want+"\n") {
			t.Errorf("%q: status %d, %s", line, status, out.String())
		}
	}
}

// A command whose output was lost has failed, whichever command it is.
func TestLostOutputFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, line := range []string{"version", "version --json", "--version", "--help", "to-disk --help", "to-disk --help-all", "schema event",
		"completion bash", "help build", "print-configuration", "man " + t.TempDir()} {
		var stderr strings.Builder
		if status := run(strings.Fields(line), full, &stderr); status != exitFailed || !strings.Contains(stderr.String(), "no space left on device\n") ||
			strings.Contains(stderr.String(), "to do") {
			t.Errorf("%q: status %d, %s", line, status, stderr.String())
		}
	}
}
