package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Every flag of every command is declared by a flag, with the same words wherever it appears.
func TestFlagsAreDeclaredOnce(t *testing.T) {
	said := map[string]string{}
	for _, c := range newRootCommand(io.Discard, io.Discard).Commands() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" && f.Annotations == nil {
				return // of cobra's own commands
			}
			if !slices.Contains(groups(), group(note(f, noteGroup))) {
				t.Errorf("%s: --%s has no group", c.Name(), f.Name)
			}
			if isSwitch := f.NoOptDefVal != ""; isSwitch != (note(f, noteValue) == "") {
				t.Errorf("%s: --%s: a value is named for a switch, or none for another flag", c.Name(), f.Name)
			}
			text := f.Usage + note(f, noteValue) + strings.Join(f.Annotations[noteChoices], " ")
			differs := []string{"json", "source-imgref"} // the commands print and read different things
			if before, known := said[f.Name]; known && before != text && !slices.Contains(differs, f.Name) {
				t.Errorf("--%s is explained as %q and as %q", f.Name, before, text)
			}
			said[f.Name] = text
		})
	}
}

func TestChoice(t *testing.T) {
	var got string
	flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
	flag{name: "filesystem", choices: []string{"xfs", "ext4", "btrfs"}, fallback: "xfs", brief: "root file system"}.text(flags, &got)
	if usage := flags.Lookup("filesystem").Usage; usage != "root file system: xfs (default), ext4 or btrfs" {
		t.Errorf("help %q", usage)
	}
	for value, want := range map[string]string{"ext4": "", "": "", "exft4": `want xfs, ext4 or btrfs (did you mean "ext4"?)`, "zfsroot": "want xfs, ext4 or btrfs"} {
		err := flags.Parse([]string{"--filesystem", value})
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
		if err == nil && got != value {
			t.Errorf("%q: the value is %q", value, got)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"to-disk", "to-filesystem", "build", "verify", "holders"}
	for typed, want := range map[string]string{"to-dsik": "to-disk", "todisk": "to-disk", "verfiy": "verify", "holder": "holders", "biuld": "build",
		"install": "", "x": "", "": "", "verify": "verify"} {
		got := didYouMean(typed, names)
		if (got == "") != (want == "") || !strings.Contains(got, `"`+want+`"`) && want != "" {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	for pair, want := range map[[2]string]int{{"", ""}: 0, {"a", ""}: 1, {"ab", "ba"}: 1, {"kitten", "sitting"}: 3} {
		if got := distance(pair[0], pair[1]); got != want {
			t.Errorf("%q: %d, want %d", pair, got, want)
		}
	}
}
