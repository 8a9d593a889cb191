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
