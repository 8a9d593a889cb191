package main

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// commands are the root and all that stand in its help.
func commands() []*cobra.Command {
	root := newRootCommand(io.Discard, io.Discard)
	list := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			list = append(list, c)
		}
	}
	return list
}

// Help fits a terminal, names every flag, and has an example where there is something to choose.
func TestHelpFits(t *testing.T) {
	for _, c := range commands() {
		for _, all := range []bool{false, true} {
			text := helpText(c, all)
			for line := range strings.Lines(text) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > helpWidth {
					t.Errorf("%s: %d columns: %s", c.Name(), n, line)
				}
			}
			if n := strings.Count(text, "\n"); !all && n > 52 {
				t.Errorf("%s: %d lines", c.Name(), n)
			}
			for _, f := range visibleFlags(c) {
				if !strings.Contains(text, "--"+f.Name) {
					t.Errorf("%s: --%s is not in its help", c.Name(), f.Name)
				}
				if brief, _, _ := strings.Cut(f.Usage, "\n"); len(brief) == 0 || strings.HasSuffix(brief, ".") {
					t.Errorf("%s: --%s is said to be %q", c.Name(), f.Name, brief)
				}
			}
		}
		if len(visibleFlags(c)) >= manyFlags && c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
	}
}

// The command that matters most fits 80x50.
func TestHelpOfToDisk(t *testing.T) {
	for _, c := range commands() {
		if c.Name() != "to-disk" {
			continue
		}
		text := helpText(c, false)
		if n := strings.Count(text, "\n"); n > 50 {
			t.Errorf("%d lines", n)
		}
		for _, want := range []string{"\nImage:\n", "\nTarget:\n", "\nSystem:\n", "\nOutput:\n", "\nExamples:\n", "--source-imgref REF "} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q", want)
			}
		}
		if strings.Contains(text, "\nOthers:\n") {
			t.Error("a flag is in no group")
		}
		return
	}
	t.Error("there is no to-disk")
}

// --help-all needs no arguments, and has details that --help leaves out.
func TestHelpAll(t *testing.T) {
	var brief, full strings.Builder
	if run([]string{"to-disk", "--help"}, &brief, io.Discard) != exitDone || run([]string{"to-disk", "--help-all"}, &full, io.Discard) != exitDone {
		t.Error("a help failed")
	}
	if !strings.Contains(full.String(), "oci-archive:FILE[:TAG]") || strings.Contains(brief.String(), "oci-archive:FILE[:TAG]") {
		t.Error("the details are in the wrong one")
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 5, ""}, {"a bb ccc", 4, "a bb|ccc"}, {"abcdefgh i", 3, "abcdefgh|i"}, {"äö üß", 5, "äö üß"},
	} {
		if got := strings.Join(wrap(c.text, c.width), "|"); got != c.want {
			t.Errorf("%q at %d: %q", c.text, c.width, got)
		}
	}
	if got, want := fill("one two\nthree:\n  as it  is\nfour"), "one two three:\n  as it  is\nfour"; got != want {
		t.Errorf("%q", got)
	}
}

// The questions of a shell when somebody presses the tabulator.
func TestCompletion(t *testing.T) {
	for want, args := range map[string][]string{
		"xfs\next4\nbtrfs\n":                    {"to-disk", "--filesystem", ""},
		"grub\nsystemd\nnone\n":                 {"build", "--bootloader", ""},
		"docker://\n":                           {"to-disk", "--source-imgref", ""},
		"oci:\n":                                {"build", "oc"},
		"oci:../installer/\n":                   {"build", "oci:../ins"},
		"event\n":                               {"schema", ""},
		"--wipe\toverwrite existing content of": {"to-disk", "--wi"},
	} {
		var out strings.Builder
		if status := run(append([]string{cobra.ShellCompRequestCmd}, args...), &out, io.Discard); status != exitDone || !strings.Contains(out.String(), want) {
			t.Errorf("%q: status %d, %q", args, status, out.String())
		}
	}
}

func TestManPage(t *testing.T) {
	for _, c := range commands() {
		page := manPage(c, "2026-11-21")
		for _, f := range visibleFlags(c) {
			if !strings.Contains(page, `\fB\-\-`+roff(f.Name)+`\fR`) {
				t.Errorf("%s: --%s is not on its page", c.Name(), f.Name)
			}
		}
	}
	var b strings.Builder
	manText(&b, "A.\n.B\n\n  x \\ y\n'c")
	if want := "A.\n\\&.B\n.PP\n.nf\n  x \\e y\n.fi\n\\&'c\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
