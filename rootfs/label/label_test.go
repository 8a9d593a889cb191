package label

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const contextsPath = "etc/selinux/t/contexts/files/file_contexts"

// tree returns a tree with a policy of these file contexts, and more files.
func tree(text string, more map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	files := map[string]string{
		"etc/selinux/config":             "# comment\nSELINUX=Enforcing\nSELINUXTYPE=t \n",
		"etc/selinux/t/policy/policy.31": "x",
		"etc/selinux/t/policy/policy.33": "x",
		contextsPath:                     text,
	}
	maps.Copy(files, more)
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func context(name string) string { return "u:r:" + name + ":s0" }

// sample is a policy with every kind of line.
const sample = `
# a comment
/.*		u:r:default:s0
/		-d	u:r:root:s0
  /usr(/.*)?	u:r:usr:s0
/usr/bin/.*	--	u:r:exec:s0 and the rest is nothing
/usr/bin/plain\.sh	--	u:r:plain:s0
/usr/bin/plain.sh	u:r:never:s0
/usr/lib/(.*/)?x[0-9]{2,3}\.so(\.[^/]+)?	--	u:r:lib:s0
/usr/lib/[[:alpha:]]+-\d	u:r:classes:s0
/dev/[^/]+	-c	u:r:chr:s0
/dev/[^/]+	-b	u:r:blk:s0
/run/.*	-s	u:r:sock:s0
/run/.*	-p	u:r:pipe:s0
/run/.*	-l	u:r:link:s0
/var/none(/.*)?	<<none>>
/var/none/kept	u:r:kept:s0
/var/log	-d	u:r:logdir:s0
/var/log	u:r:log:s0
/var/exact	<<none>>
/srv/a|/srv/b	u:r:either:s0
/srv/word\b.*	u:r:word:s0
/srv/one.	u:r:one:s0
/srv/(?i)case	u:r:case:s0
/srv/esc\_aped\-x	u:r:escaped:s0
/home/[^/]+	-d	u:r:base:s0
/new/home/.*	u:r:new:s0
/dst/.*	u:r:dst:s0
`

var sampleMore = map[string]string{
	contextsPath + ".homedirs":  "/home/[^/]+\t-d\tu:r:homedir:s0\n/home/ann\t-d\tu:r:ann:s0\n",
	contextsPath + ".local":     "/home/ann\tu:r:local:s0\n/usr/bin/changed\tu:r:changed:s0",
	contextsPath + ".subs_dist": "# comment\n/lib /usr/lib\n/usr/lib64 /usr/lib\n/a /dst\n/top /\n/alone\n",
	contextsPath + ".subs":      "/local /lib\n/a /new/home more\n/a /nowhere\n",
}

var samplePaths = []string{
	"/", "/other", "/usr", "/usr/", "/usr//bin//x", "/usr/bin/x", "/usr/bin/plain.sh", "/usr/bin/plainXsh", "/usr/bin/changed",
	"/usr/lib/x12.so", "/usr/lib/a/b/x123.so.1", "/usr/lib/x1234.so", "/usr/lib/abc-7", "/usr/lib/abc-77", "/usrx",
	"/dev/sda", "/dev/a/b", "/run/x", "/var/none", "/var/none/x", "/var/none/kept", "/var/log", "/var/exact",
	"/srv/word", "/srv/words", "/srv/word-s", "/srv/one1", "/srv/one\u00e9", "/srv/onex\u00e9", "/srv/CaSe", "/srv/esc_aped-x",
	"/home/bob", "/home/ann", "/lib", "/lib/x12.so", "/libx", "/usr/lib64/x12.so", "/local/x12.so", "/a/x", "/a", "/top/usr/bin/x", "/top", "/alone/x",
}

// older has the labels of libselinux 3.4, and of this package, where 3.8 gives others: of two lines for one
// path, the last one counts, though the other is for one type of file alone, or in a list of substitutions.
var older = map[string]string{"/var/log": "u:r:log:s0", "/home/ann": "u:r:local:s0", "/a/x": "u:r:default:s0"}

// TestSample compares the labels by a policy with every kind of line with libselinux's.
func TestSample(t *testing.T) {
	dir := t.TempDir()
	fsys := tree(sample, sampleMore)
	for name, f := range fsys {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, f.Data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for kind := range typeNames {
		want := byLibselinux(t, filepath.Join(dir, contextsPath), kind, samplePaths)
		for i, name := range samplePaths {
			if got := p.Of(name, kind|0o644); got != want[i] && (older[name] == "" || got != older[name]) {
				t.Errorf("%s (%s) has the label %q, want %q", name, typeNames[kind], got, want[i])
			}
		}
	}
}

// TestOf has the cases that matchpathcon does not show.
func TestOf(t *testing.T) {
	p, err := Load(tree(sample+"/proc\t<<none>>\n/mnt\tu:r:mnt:s0\n/line\tu:r:line:s0\n/li.e\tu:r:lie:s0\n", sampleMore))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		mode uint32
		want string
	}{
		{"/usr/bin/x", 0, "exec"}, // no type is every type
		{"/var/log", 0, "log"},
		{"/proc", directory, "mnt"},
		{"/mnt", directory, "mnt"},
		{"/srv/a", regular, "either"},
		{"/srv/a/more", regular, "either"}, // a|b is anchored at one end each
		{"/x/srv/b", regular, "either"},
		{"/srv/one\n", regular, "one"},
		{"/lite\n", regular, "lie"}, // PCRE's $
		{"/li\ne", regular, "lie"},
		{"/lite\n\n", regular, "default"},
	} {
		if got := p.Of(c.name, c.mode); got != context(c.want) {
			t.Errorf("%q with mode %o has the label %q, want %q", c.name, c.mode, got, context(c.want))
		}
	}
}

func TestLoad(t *testing.T) {
	with := func(name, text string) fstest.MapFS { return tree("/.* u:r:x:s0\n", map[string]string{name: text}) }
	p, err := Load(with("x", ""))
	if err != nil || p.Name != "t" || !p.Enforcing || p.Version != 33 || p.Binary != "etc/selinux/t/policy/policy.33" {
		t.Errorf("the policy is %+v, %v", p, err)
	}
	moved := fstest.MapFS{}
	for name, f := range with("x", "") {
		moved["usr/"+name] = f
	}
	if p, err := Load(moved); err != nil || p.Of("/a", regular) != context("x") {
		t.Errorf("a tree with usr/etc: %v", err)
	}
	for _, config := range []string{"", "SELINUX=disabled\nSELINUXTYPE=t\n", "#SELINUX=enforcing\n", "SELINUXTYPE=t"} {
		if p, err := Load(with("etc/selinux/config", config)); p != nil || err != nil {
			t.Errorf("config %q has the policy %v, %v", config, p, err)
		}
	}
	if p, err := Load(fstest.MapFS{}); p != nil || err != nil {
		t.Errorf("an empty tree has the policy %v, %v", p, err)
	}
	if p, err := Load(with("etc/selinux/config", "SELINUX=permissive\nSELINUXTYPE=t")); err != nil || p.Enforcing {
		t.Errorf("permissive: %v, %v", p, err)
	}
}

func TestIsBinary(t *testing.T) {
	for name, want := range map[string]bool{
		"etc/selinux/t/policy/policy.33": true, "./etc/selinux/t/policy/policy.33": true, "/usr/etc/selinux/t/policy/policy.9": true,
		"etc/selinux/t/policy/sub/policy.33": false, "usr/share/selinux/t/policy/policy.33": false, "etc/selinux/config": false,
	} {
		if got := IsBinary(name); got != want {
			t.Errorf("%s is a binary policy: %v", name, got)
		}
	}
}

func TestFaults(t *testing.T) {
	fine := "/.* u:r:x:s0\n"
	for name, c := range map[string]struct {
		file, text, want string
	}{
		"no context":        {contextsPath, fine + "\n/alone\n", contextsPath + `, line 3: "/alone" has no context`},
		"unknown type":      {contextsPath, fine + "/a -x u:r:x:s0", contextsPath + `, line 2: "-x" is no file type`},
		"no context either": {contextsPath, fine + "/a -- ordinary", contextsPath + `, line 2: "ordinary" is not a context`},
		"not ASCII":         {contextsPath, fine + "/\u00e9 u:r:x:s0", contextsPath + `, line 2: "/é" has characters`},
		"open bracket":      {contextsPath, fine + "/a[ u:r:x:s0", contextsPath + `, line 2: the regular expression "/a["`},
		"look-ahead":        {contextsPath + ".local", "/a(?!b) u:r:x:s0", contextsPath + `.local, line 1: the regular expression "/a(?!b)"`},
		"back-reference":    {contextsPath + ".homedirs", fine + `/(a)\1 u:r:x:s0`, contextsPath + `.homedirs, line 2: the regular expression`},
		"odd and broken":    {contextsPath, fine + `/a|/b( u:r:x:s0`, contextsPath + `, line 2: the regular expression`},
		"long":              {contextsPath, fine + "/" + strings.Repeat("a", 4096) + " u:r:x:s0", contextsPath + `, line 2: the regular expression is longer`},
		"bad type":          {"etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=../x", "etc/selinux/config: SELINUXTYPE=../x"},
	} {
		_, err := Load(tree(fine, map[string]string{c.file: c.text}))
		fault := (*Error)(nil)
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	var missing *MissingError
	if _, err := Load(tree(fine, map[string]string{"etc/selinux/config": "SELINUX=enforcing"})); !errors.As(err, &missing) || missing.Name != "targeted" {
		t.Errorf("a policy that is missing: %v", err)
	}
	without := tree(fine, nil)
	delete(without, contextsPath)
	if _, err := Load(without); err == nil || !strings.Contains(err.Error(), contextsPath) {
		t.Errorf("without file contexts: %v", err)
	}
	delete(without, "etc/selinux/t/policy/policy.31")
	delete(without, "etc/selinux/t/policy/policy.33")
	without["etc/selinux/t/policy/other"] = &fstest.MapFile{}
	if _, err := Load(without); err == nil || !strings.Contains(err.Error(), "no binary policy") {
		t.Errorf("without binary policy: %v", err)
	}
}

// TestManyStates has the automaton forget its states.
func TestManyStates(t *testing.T) {
	p, err := Load(tree("/(.*/)?a...............\\.so u:r:x:s0\n", nil))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1 << 17 {
		var name [17]byte
		for j := range name {
			name[j] = "ab"[i>>j&1]
		}
		if got := p.Of("/"+string(name[:]), regular); got != "" {
			t.Fatalf("%s has the label %q", name, got)
		}
		if got := p.Of("/a"+string(name[:15])+".so", regular); got != context("x") {
			t.Fatalf("a%s.so has the label %q", name[:15], got)
		}
	}
}

// FuzzMachine compares the automaton with Go's package regexp.
func FuzzMachine(f *testing.F) {
	for _, line := range strings.Split(sample, "\n") {
		if s, err := parseSpec(line); err == nil && s != nil {
			f.Add(s.regex, "/usr/bin/x")
		}
	}
	f.Add("/a{2,3}$", "/aaa\n")
	f.Add("^/x(^|y)$", "/xy")
	f.Add("(?i)/K[^/]", "/k\xe9")
	f.Add("/(?-s).", "/\n")
	f.Fuzz(func(t *testing.T, regex, name string) {
		plain, err := regexp.Compile("(?s)^" + regex + "$")
		if strings.Contains(regex, "\n") || strings.Contains(name, "\n") || len(regex) > 100 {
			return
		}
		m, made := newMachine([]spec{{regex: regex}})
		if (made == nil) != (err == nil) {
			t.Fatalf("%q: %v, and %v by package regexp", regex, made, err)
		}
		if err == nil && (len(m.match(name)) > 0) != plain.MatchString(widen(name)) {
			t.Errorf("%q and %q: %v", regex, name, m.match(name))
		}
	})
}

// FuzzLoad has no text end the program.
func FuzzLoad(f *testing.F) {
	f.Add(sample, sampleMore[contextsPath+".subs"], "/a/x")
	f.Add("/a\x00 b\n/\\", "/ /\n/a", "//")
	f.Fuzz(func(t *testing.T, text, subs, name string) {
		if p, err := Load(tree(text, map[string]string{contextsPath + ".subs": subs})); err == nil {
			p.Of(name, regular)
		}
	})
}
