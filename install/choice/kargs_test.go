package choice

import (
	"slices"
	"strings"
	"testing"
)

// The order and the rules that bootc documents for kernel arguments.
func TestKargs(t *testing.T) {
	root := []string{"root=UUID=1", "rw"}
	for name, c := range map[string]struct {
		sources kargSources
		want    string
	}{
		"order": {kargSources{root: root, config: []string{"nosmt", "console=tty0"}, image: []string{"console=ttyS0,115200n8", "mitigations=auto,nosmt"}, flags: []string{"quiet"}},
			"root=UUID=1 rw nosmt console=tty0 console=ttyS0,115200n8 mitigations=auto,nosmt quiet"},
		"an equal argument once, another value again": {kargSources{root: root, config: []string{"rw", "console=tty0"}, image: []string{"console=tty0", "console=tty1"}, flags: []string{"console=tty0"}},
			"root=UUID=1 rw console=tty0 console=tty1"},
		"a value deletes one, a key all": {kargSources{config: []string{"console=tty0", "quiet", "debug", "nosmt", "foo=bar", "foo=baz", "bar=baz"}, deletes: []string{"foo=bar", "bar", "debug"}},
			"console=tty0 quiet nosmt foo=baz"},
		"the command line overrides what it deletes": {kargSources{root: root, config: []string{"console=tty0"}, image: []string{"quiet"}, deletes: []string{"console", "quiet"}, flags: []string{"quiet", "console=tty1"}},
			"root=UUID=1 rw quiet console=tty1"},
		"the root's can be deleted too": {kargSources{root: root, deletes: []string{"rw"}, flags: []string{"ro"}}, "root=UUID=1 ro"},
		"entries of several arguments":  {kargSources{config: []string{"a b", " c "}, image: []string{`x="y z" w`}, deletes: []string{"a c"}}, `b x="y z" w`},
		"a key's - and _ are the same":  {kargSources{config: []string{"a-b=1", "c_d"}, image: []string{"a_b=1"}, deletes: []string{"c-d"}}, "a-b=1"},
		"a key with and without value":  {kargSources{config: []string{"a", "a="}, image: []string{"a=1"}, deletes: []string{"a="}}, "a a=1"},
		"nothing to delete":             {kargSources{root: root, deletes: []string{"none", "rw=1", ""}}, "root=UUID=1 rw"},
	} {
		if got := strings.Join(c.sources.assemble(), " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSplitKargs(t *testing.T) {
	for line, want := range map[string][]string{
		"": nil, "  ": nil, "a": {"a"}, " a  b ": {"a", "b"}, `a="b c" d`: {`a="b c"`, "d"}, `"a=b c" d`: {`"a=b c"`, "d"}, `a" b`: {`a" b`},
	} {
		if got := splitKargs(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestCheckKargs(t *testing.T) {
	for _, bad := range []string{"", " ", "a\nb", "a\tb", `a="b`, "ok a\x7f"} {
		if checkKargs([]string{"ok", bad}) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if err := checkKargs([]string{"a b", `c="d e"`, "f=g,h"}); err != nil {
		t.Error(err)
	}
}

// Arguments that an installation adds itself are the user's only where he makes room for them.
func TestReservedKargs(t *testing.T) {
	for name, c := range map[string]struct {
		kargs, deletes []string
		refused        bool
	}{
		"others":           {kargs: []string{"quiet", "rootflags=x", "rootwait", "ostree_x=1", "systemd.x=root=y"}},
		"root":             {kargs: []string{"root=LABEL=x"}, refused: true},
		"root among":       {kargs: []string{"quiet root=/dev/vda1"}, refused: true},
		"root quoted":      {kargs: []string{`"root=/dev/vda1"`}, refused: true},
		"root with room":   {kargs: []string{"root=LABEL=x"}, deletes: []string{"root"}},
		"ostree":           {kargs: []string{"ostree=/x"}, refused: true},
		"ostree with room": {kargs: []string{"ostree=/x"}, deletes: []string{"ostree"}, refused: true},
		"ostree deleted":   {deletes: []string{"ostree"}, refused: true},
	} {
		err := Options{Kargs: c.kargs, KargDeletes: c.deletes}.Validate()
		if (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if notes := noteReserved([]string{"quiet root=LABEL=root", "ostree=/x", "rootwait"}); len(notes) != 2 {
		t.Errorf("notes of an image's arguments: %q", notes)
	}
}

// The kernel cuts a command line off after 2,047 bytes. The longest that is accepted fits with all
// that is added.
func TestCommandLineLength(t *testing.T) {
	const stateroot = "default"
	for n := 1500; ; n++ {
		line := []string{"quiet", strings.Repeat("x", n)}
		if checkLength(line, stateroot) == nil {
			continue
		}
		longest := "BOOT_IMAGE=(hd0,gpt3)/boot/ostree/default-" + strings.Repeat("0", 64) + "/vmlinuz-6.1.0-56-cloud-amd64 quiet " +
			strings.Repeat("x", n-1) + " ostree=/ostree/boot.1/default/" + strings.Repeat("0", 64) + "/0"
		if len(longest) > 2047 || len(longest) < 1900 {
			t.Errorf("the longest command line has %d bytes", len(longest))
		}
		return
	}
}
