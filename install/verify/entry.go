package verify

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bootEntry is a boot entry of the Boot Loader Specification, type 1, as ostree writes it.
type bootEntry struct {
	name   string // of its file
	path   string // on the root file system, without a leading slash
	text   string
	number int // the N of ostree-N.conf, by which deployments are ordered
	title  string

	options []string
	linux   string
	initrds []string
	trees   []string // device trees

	link   bootLink    // value of ostree=
	target *deployment // the deployment that it starts; nil when there is none
}

// entryName matches the names of ostree's boot entries: a number, perhaps a stateroot, perhaps boot
// counting.
var entryName = regexp.MustCompile(`^ostree-([0-9]+)(-[A-Za-z0-9_.-]+)?(\+[0-9]+(-[0-9]+)?)?\.conf$`)

// parseEntry reads an entry strictly; each problem is one line. A line that no boot loader knows is
// a problem, since a damaged one looks like that.
func parseEntry(name, text string) (*bootEntry, []string) {
	e := &bootEntry{name: name, text: text}
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if m := entryName.FindStringSubmatch(name); m != nil {
		e.number, _ = strconv.Atoi(m[1])
	} else {
		add("its name is none that ostree gives to a boot entry")
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && c != '\t' && !unicode.IsPrint(c) }) {
		add("it holds characters that no boot entry has")
	}
	if !strings.HasSuffix(text, "\n") {
		add("its last line does not end")
	}
	seen := map[string]int{}
	version := ""
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		seen[key]++
		switch key {
		case "title":
			e.title = value
		case "version":
			version = value
		case "options":
			e.options = append(e.options, splitArguments(value)...)
		case "linux":
			e.linux = value
		case "initrd":
			e.initrds = append(e.initrds, value)
		case "devicetree", "fdtdir":
			e.trees = append(e.trees, value)
		default:
			if !knownKey(key) {
				add("it has the unknown key %q", key)
			}
		}
	}
	for _, key := range []string{"title", "version", "options", "linux"} {
		if seen[key] != 1 {
			add("it has %d lines %q instead of one", seen[key], key)
		}
	}
	if version != strconv.Itoa(e.number) {
		add("its version is %q, and its name has %d", version, e.number)
	}
	link, err := parseLink(e.options)
	if err != nil {
		add("%v", err)
	}
	e.link = link
	if !slices.Contains(e.options, "rw") && !slices.Contains(e.options, "ro") {
		add("its kernel arguments say neither rw nor ro")
	}
	return e, problems
}

// knownKey reports whether a key has no meaning here and is known from elsewhere: the Boot Loader
// Specification, ostree, Fedora's GRUB, or a program that marks its keys as its own.
func knownKey(key string) bool {
	switch key {
	case "aboot", "abootcfg", "machine-id", "sort-key", "architecture", "devicetree-overlay", "efi", "uki", "uki-url", "profile", "extra", "id":
		return true
	}
	return strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "grub_")
}

// splitArguments splits kernel arguments at blanks outside of double quotes, as the kernel does.
func splitArguments(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		return c == ' ' && !quoted
	})
}

// files lists the files of the entry, by the names in it.
func (e *bootEntry) files() []string {
	return append([]string{e.linux}, append(slices.Clone(e.initrds), e.trees...)...)
}

// bootLink is the value of ostree=: a link beneath the physical root that leads to a deployment.
type bootLink struct {
	version   string // "0" or "1", of the boot configuration
	stateroot string
	checksum  string // of the kernel's files
	serial    string // counts deployments with the same kernel
}

func (l bootLink) path() string {
	return path.Join("ostree/boot."+l.version, l.stateroot, l.checksum, l.serial)
}

// linkPattern is how ostree reads the argument.
var linkPattern = regexp.MustCompile(`^/ostree/boot\.([01])/([A-Za-z0-9_][A-Za-z0-9_.-]*)/([0-9a-f]{64})/([0-9]+)$`)

func parseLink(options []string) (bootLink, error) {
	for _, arg := range options {
		value, ok := strings.CutPrefix(arg, "ostree=")
		if !ok {
			continue
		}
		m := linkPattern.FindStringSubmatch(value)
		if m == nil {
			return bootLink{}, fmt.Errorf("its kernel argument ostree=%s is not of the form that leads to a deployment", value)
		}
		return bootLink{m[1], m[2], m[3], m[4]}, nil
	}
	return bootLink{}, fmt.Errorf("it has no kernel argument ostree=")
}

// bootPath is the path on the root file system of a file that an entry names: with or without
// /boot.
func bootPath(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if strings.HasPrefix(clean, "boot/") {
		return clean
	}
	return path.Join("boot", clean)
}
