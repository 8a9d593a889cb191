package osrelease

import (
	"bytes"
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Release{
		"ID=x\nPRETTY_NAME=\"Lab \\\"7\\\" $\"\n":         {"x", `Lab "7" $`},
		"# ID=y\nID='it is'\\''s'\n":                      {"it is's", ""},
		"ID=a\nID=b\n  PRETTY_NAME='a\\b'  \nID_LIKE=c\n": {"b", `a\b`},
		"":        {},
		"nothing": {},
	} {
		if got := Parse(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		tree fstest.MapFS
		want string
		err  error
	}{
		"usr first":      {fstest.MapFS{"usr/lib/os-release": {Data: []byte("ID=a\n")}, "etc/os-release": {Data: []byte("ID=b\n")}}, "a", nil},
		"etc":            {fstest.MapFS{"etc/os-release": {Data: []byte("ID=b\n")}}, "b", nil},
		"none":           {fstest.MapFS{}, "", fs.ErrNotExist},
		"a link nowhere": {fstest.MapFS{"usr/lib/os-release": {Mode: fs.ModeSymlink, Data: []byte("nowhere")}}, "", fs.ErrNotExist},
		"no name":        {fstest.MapFS{"etc/os-release": {Data: []byte("VERSION=1\n")}}, "", ErrNoName},
	} {
		if got, err := Read(c.tree); got.Name() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", name, got.Name(), err, c.want, c.err)
		}
	}
	large := fstest.MapFS{"etc/os-release": {Data: bytes.Repeat([]byte("#"), maxSize+1)}}
	if _, err := Read(large); err == nil {
		t.Error("a file without a bound is read")
	}
}

// TestTitle has GRUB's own checker judge the titles that are made of names.
func TestTitle(t *testing.T) {
	for name, want := range map[string]string{
		"Debian GNU/Linux 12 (bookworm)": "Debian GNU/Linux 12 (bookworm)",
		"R&D Linux":                      "R+D Linux",
		"Tom's \"OS\"":                   "Tom’s \"OS\"",
		`15" of Linux`:                   "15’ of Linux",
		"a\tb\nc;d $x #1 `y` {z} \\|<>":  "a b c-d -x -1 `y` -z- ----",
		"Ünïcödé 系统 \xff":                "Ünïcödé 系统 -",
		strings.Repeat("é", 1000):        strings.Repeat("é", 100),
	} {
		title := Release{PrettyName: name}.Title()
		if title != want {
			t.Errorf("%q: %q, want %q", name, title, want)
		}
		check := exec.Command("grub-script-check")
		check.Stdin = strings.NewReader("title " + title + " 1 (ostree:0)\n")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("grub-script-check of %q: %v\n%s", title, err, out)
		}
	}
}
