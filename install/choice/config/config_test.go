package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// files makes a root of names and texts.
func files(texts ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(texts); i += 2 {
		m[texts[i]] = &fstest.MapFile{Data: []byte(texts[i+1])}
	}
	return m
}

func load(t *testing.T, arch string, roots ...fs.FS) *Loaded {
	t.Helper()
	l, err := Load(arch, roots...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func asJSON(t *testing.T, c Config, all bool) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.WriteJSON(&b, all); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	usr   = "usr/lib/bootc/install/"
	local = "usr/local/lib/bootc/install/"
	etc   = "etc/bootc/install/"
	run   = "run/bootc/install/"
)

// The merging that bootc's documentation and its own tests describe, each case as the JSON that
// bootc install print-configuration --all gives for it.
func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		arch  string
		roots []fs.FS
		want  string // keys that are not null
	}{
		"nothing": {"amd64", []fs.FS{files()}, `{}`},
		"documented example": {"amd64", []fs.FS{files(usr+"00.toml", `[install.filesystem.root]
type = "xfs"
[install]
kargs = ["nosmt", "console=tty0"]
stateroot = "myos"
root-mount-spec = "LABEL=rootfs"
boot-mount-spec = "UUID=abcd-1234"
enforce-container-sigpolicy = true
[install.ostree]
bls-append-except-default = 'grub_users=""'
`)}, `{"block":["direct"],"boot-mount-spec":"UUID=abcd-1234","enforce-container-sigpolicy":true,"filesystem":{"root":{"type":"xfs"}},
			"kargs":["nosmt","console=tty0"],"ostree":{"bls-append-except-default":"grub_users=\"\""},"root-fs-type":"xfs",
			"root-mount-spec":"LABEL=rootfs","stateroot":"myos"}`},
		"a later file overrides": {"amd64", []fs.FS{files(
			usr+"00.toml", "[install]\nroot-fs-type = \"xfs\"", usr+"10.toml", "[install]\nroot-fs-type = \"ext4\"")},
			`{"block":["direct"],"root-fs-type":"ext4","filesystem":{"root":{"type":"ext4"}}}`},
		"the table of the root's type wins": {"amd64", []fs.FS{files(
			usr+"00.toml", "[install.filesystem.root]\ntype = \"btrfs\"", usr+"10.toml", "[install]\nroot-fs-type = \"ext4\"")},
			`{"block":["direct"],"root-fs-type":"btrfs","filesystem":{"root":{"type":"btrfs"}}}`},
		"kernel arguments are appended": {"amd64", []fs.FS{files(
			usr+"00.toml", "[install]\nkargs = [\"console=ttyS0\", \"foo=bar\"]\nkarg-deletes = [\"debug\", \"bar=baz\"]",
			usr+"10.toml", "[install]\nkargs = [\"console=tty0\", \"nosmt\"]\nkarg-deletes = [\"baz\", \"bar=baz\"]")},
			`{"block":["direct"],"kargs":["console=ttyS0","foo=bar","console=tty0","nosmt"],"karg-deletes":["debug","bar=baz","baz","bar=baz"]}`},
		"names order files of all directories": {"amd64", []fs.FS{files(
			etc+"10.toml", "[install]\nkargs = [\"second\"]", usr+"20.toml", "[install]\nkargs = [\"third\"]", local+"05.toml", "[install]\nkargs = [\"first\"]",
			run+"30.toml", "[install]\nkargs = [\"fourth\"]")},
			`{"block":["direct"],"kargs":["first","second","third","fourth"]}`},
		"etc replaces a file of the same name": {"amd64", []fs.FS{files(
			usr+"00.toml", "[install]\nstateroot = \"usr\"\nkargs = [\"usr\"]", local+"00.toml", "[install]\nkargs = [\"local\"]", etc+"00.toml", "[install]\nkargs = [\"etc\"]")},
			`{"block":["direct"],"kargs":["etc"]}`},
		"the running root goes over the image": {"amd64", []fs.FS{
			files(usr+"00.toml", "[install]\nkargs = [\"image\"]", usr+"10.toml", "[install]\nstateroot = \"image\""),
			files(usr+"00.toml", "[install]\nkargs = [\"running\"]")},
			`{"block":["direct"],"kargs":["running"],"stateroot":"image"}`},
		"only files of this architecture": {"arm64", []fs.FS{files(
			usr+"00.toml", "[install]\nkargs = [\"console=ttyS0\"]\nmatch-architectures = [\"x86_64\"]",
			usr+"10.toml", "[install]\nkargs = [\"console=tty0\"]\nmatch-architectures = [\"aarch64\"]",
			usr+"20.toml", "[install]\nkargs = [\"nosmt\"]\nmatch-architectures = [\"x86_64\", \"aarch64\"]")},
			`{"block":["direct"],"kargs":["console=tty0","nosmt"],"match-architectures":["aarch64"]}`},
		"the manual page's spelling": {"amd64", []fs.FS{files(usr+"00.toml", "[install]\nstateroot = \"x\"\nmatch_architectures = [\"aarch64\"]")}, `{}`},
		"an empty list of block setups": {"amd64", []fs.FS{files(usr+"00.toml", "[install]\nblock = [\"tpm2-luks\"]", usr+"01.toml", "[install]\nblock = []")},
			`{"block":[]}`},
		"the rest": {"amd64", []fs.FS{files(
			usr+"00.toml", "[install]\nbootloader = \"systemd\"\ndiscoverable-partitions = true\n[install.bootupd]\nskip-boot-uuid = false",
			usr+"10.toml", "[install]\nbootloader = \"none\"\n[install.bootupd]\nskip-boot-uuid = true\n[install.ostree]")},
			`{"block":["direct"],"bootloader":"none","discoverable-partitions":true,"bootupd":{"skip-boot-uuid":true},"ostree":{}}`},
		"no table install, and names that do not count": {"amd64", []fs.FS{files(
			usr+"00.toml", "", usr+"10.conf", "no toml", usr+".hidden.toml", "no = toml", usr+"dir.toml/x.toml", "no toml")}, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			l := load(t, c.arch, c.roots...)
			checkJSON(t, asJSON(t, l.Config, true), c.want)
			if len(l.Notes) > 0 {
				t.Errorf("notes: %q", l.Notes)
			}
		})
	}
}

// nullable are the keys that bootc prints as null where nothing sets them.
var nullable = []string{"block", "boot-mount-spec", "bootloader", "bootupd", "discoverable-partitions", "enforce-container-sigpolicy",
	"filesystem", "match-architectures", "ostree", "root-fs-type", "root-mount-spec", "stateroot"}

// checkJSON compares a configuration with JSON that lacks the nulls, and demands canonical JSON:
// sorted keys, no blanks.
func checkJSON(t *testing.T, got, want string) {
	t.Helper()
	expected := map[string]any{}
	for _, key := range nullable {
		expected[key] = nil
	}
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(expected); err != nil { // maps are encoded in the order of their keys
		t.Fatal(err)
	}
	if got != b.String() {
		t.Errorf("got  %swant %s", got, b.String())
	}
}

func TestPrintWithoutKernelArguments(t *testing.T) {
	l := load(t, "amd64", files(usr+"00.toml", "[install]\nkargs = [\"a\"]\nkarg-deletes = [\"b\"]\nroot-fs-type = \"xfs\""))
	checkJSON(t, asJSON(t, l.Config, false), `{"block":["direct"],"root-fs-type":"xfs","filesystem":{"root":{"type":"xfs"}}}`)
	if len(l.Kargs) != 1 || len(l.KargDeletes) != 1 {
		t.Error("printing changed the configuration")
	}
}

func TestMasked(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{usr, etc, run} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(usr+"00.toml", "[install]\nkargs = [\"masked\"]")
	write(usr+"10.toml", "[install]\nkargs = [\"masked too\"]")
	write(run+"10.toml", "[install]\nkargs = [\"kept\"]")
	for _, name := range []string{etc + "00.toml", etc + "10.toml"} {
		if err := os.Symlink("/dev/null", filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	l := load(t, "amd64", os.DirFS(root))
	if !slices.Equal(l.Kargs, []string{"kept"}) || !slices.Equal(l.Files, []string{"/" + run + "10.toml"}) {
		t.Errorf("kernel arguments %q of %q", l.Kargs, l.Files)
	}
}

func TestUnknownKeysAreNoted(t *testing.T) {
	l := load(t, "amd64", files(usr+"00.toml", "top = 1\n[install]\nkarg = [\"a\"]\nkargs = [\"b\"]\n[install.filesystem.boot]\ntype = \"ext4\"\n[other]\nx = 1",
		usr+"10.toml", "[install]\nmatch-architectures = [\"amd64\"]\nkargs = [\"c\"]"))
	if !slices.Equal(l.Kargs, []string{"b"}) {
		t.Errorf("kernel arguments %q", l.Kargs)
	}
	notes := strings.Join(l.Notes, "\n")
	for _, want := range []string{"/" + usr + "00.toml: unknown key top", "unknown key install.karg ", "install.filesystem.boot", "other", `"amd64", which matches nothing: the name here is "x86_64"`} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note of %q in:\n%s", want, notes)
		}
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	for name, text := range map[string]string{
		"no TOML": "[install", "a wrong type": "[install]\nkargs = \"a b\"", "no file system": "[install]\nroot-fs-type = \"vfat\"",
		"no file system in the table": "[install.filesystem.root]\ntype = \"vfat\"", "no block setup": "[install]\nblock = [\"lvm\"]",
	} {
		_, err := Load("amd64", files(usr+"00.toml", text))
		var fault *FileError
		if !errors.As(err, &fault) || fault.Path != usr+"00.toml" || !strings.Contains(err.Error(), "/"+usr+"00.toml: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBlockSetup(t *testing.T) {
	for _, c := range []struct {
		block       []string
		asked, want string
		fails       bool
	}{
		{nil, "", "direct", false}, {nil, "direct", "direct", false}, {nil, "tpm2-luks", "", true},
		{[]string{"tpm2-luks"}, "", "tpm2-luks", false}, {[]string{"tpm2-luks"}, "direct", "", true},
		{[]string{"direct", "tpm2-luks"}, "tpm2-luks", "tpm2-luks", false}, {[]string{}, "", "", true}, {[]string{}, "direct", "", true},
	} {
		got, err := Config{Block: c.block}.BlockSetup(c.asked)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("block = %q, asked for %q: %q, %v", c.block, c.asked, got, err)
		}
	}
}

func TestLoadKargs(t *testing.T) {
	const d = KargsDir + "/"
	image := files(d+"10-example.toml", `kargs = ["mitigations=auto,nosmt"]`, d+"00-console.toml", "kargs = [\"console=ttyS0,115200n8\"]\nmatch-architectures = [\"x86_64\"]",
		d+"20-more.toml", `kargs = ["a b", "c=\"d e\""]`, d+"README", "no toml")
	for arch, want := range map[string][]string{
		"amd64": {"console=ttyS0,115200n8", "mitigations=auto,nosmt", "a b", `c="d e"`},
		"arm64": {"mitigations=auto,nosmt", "a b", `c="d e"`},
	} {
		l, err := LoadKargs(arch, image)
		if err != nil || !slices.Equal(l.Kargs, want) || len(l.Notes) > 0 || len(l.Files) != 3 {
			t.Errorf("%s: %+v, %v", arch, l, err)
		}
	}
	if l, err := LoadKargs("amd64", files()); err != nil || l.Kargs != nil {
		t.Errorf("no directory: %+v, %v", l, err)
	}
	l, err := LoadKargs("amd64", files(d+"00.toml", "karg = [\"a\"]"))
	if err != nil || len(l.Notes) != 2 {
		t.Errorf("a misspelt key: %+v, %v", l, err)
	}
	if _, err := LoadKargs("amd64", files(d+"00.toml", "kargs = 1")); err == nil || !strings.Contains(err.Error(), d+"00.toml") {
		t.Errorf("a wrong type: %v", err)
	}
}

// A file of the root that the configuration is read from neither blocks nor exhausts the reader.
func TestFilesThatAreRefused(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"a pipe": func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a link to a pipe": func(path string) error {
			return errors.Join(unix.Mkfifo(path+".pipe", 0o644), os.Symlink(filepath.Base(path)+".pipe", path))
		},
		"a device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"too large": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, maxFile+1))
		},
	} {
		root := t.TempDir()
		dir := filepath.Join(root, "etc/bootc/install")
		if err := errors.Join(os.MkdirAll(dir, 0o755), make(filepath.Join(dir, "00.toml"))); err != nil {
			t.Fatal(err)
		}
		if _, err := Load("amd64", os.DirFS(root)); !errors.As(err, new(*FileError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
