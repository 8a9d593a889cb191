package label

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

// Suffixes of the files beside file_contexts.
const (
	suffixHomedirs = ".homedirs"
	suffixLocal    = ".local"
	suffixSubs     = ".subs"
	suffixSubsDist = ".subs_dist"
)

// none is the context of paths that get no label.
const none = "<<none>>"

// spec is one line of file contexts.
type spec struct {
	regex   string
	kind    uint32 // file type of st_mode; 0: all
	context string // "": no label
	file    string
	line    int
}

// fits reports whether the line is meant for files of a type.
func (s *spec) fits(kind uint32) bool { return s.kind == 0 || kind == 0 || s.kind == kind }

// substitution has the paths below one directory looked up below another.
type substitution struct{ from, to string }

// contexts are the lines of all files of a policy, in the order in which a later one wins.
type contexts struct {
	local, dist []substitution // the last line first
	literal     map[string][]spec
	patterns    []spec

	mu      sync.Mutex // of machine, which grows by lookups
	machine *machine
}

// loadContexts reads the file contexts called name and those beside them.
func loadContexts(tree fs.FS, name string) (*contexts, error) {
	c := &contexts{literal: map[string][]spec{}}
	for _, suffix := range []string{"", suffixHomedirs, suffixLocal} {
		text, err := readText(tree, name+suffix, suffix != "")
		if err == nil {
			err = c.parse(name+suffix, text)
		}
		if err != nil {
			return nil, err
		}
	}
	for suffix, list := range map[string]*[]substitution{suffixSubs: &c.local, suffixSubsDist: &c.dist} {
		text, err := readText(tree, name+suffix, true)
		if err != nil {
			return nil, err
		}
		*list = parseSubstitutions(text)
	}
	var err error
	c.machine, err = newMachine(c.patterns)
	return c, err
}

// readText reads a file of the policy; one that may be missing is empty then.
func readText(tree fs.FS, name string, optional bool) (string, error) {
	text, err := fs.ReadFile(tree, name)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &Error{File: name, Err: err}
	}
	return string(text), nil
}

// parse reads one file of lines.
func (c *contexts) parse(file, text string) error {
	number := 0
	for line := range strings.Lines(text) {
		number++
		s, err := parseSpec(line)
		if err != nil {
			return &Error{File: file, Line: number, Err: err}
		}
		if s == nil {
			continue
		}
		s.file, s.line = file, number
		if exact, ok := literalOf(s.regex); ok {
			c.literal[exact] = append(c.literal[exact], *s)
		} else {
			c.patterns = append(c.patterns, *s)
		}
	}
	return nil
}

// maxRegex is the length from which on libselinux compiles no regular expression.
const maxRegex = 4096

// isSpace is isspace(3) in the C locale.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// parseSpec reads a line; that of a comment or an empty one is nil.
func parseSpec(line string) (*spec, error) {
	line, _, _ = strings.Cut(line, "\x00") // libselinux sees the text as C does
	fields := strings.FieldsFunc(line, isSpace)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return nil, nil
	}
	if len(fields) == 1 {
		return nil, fmt.Errorf("%q has no context", fields[0])
	}
	fields = fields[:min(len(fields), 3)] // libselinux reads no further
	for _, f := range fields {
		if i := strings.IndexFunc(f, func(r rune) bool { return r > 0x7f }); i >= 0 {
			return nil, fmt.Errorf("%q has characters that are not ASCII", f)
		}
	}
	s := &spec{regex: fields[0], context: fields[len(fields)-1]}
	if len(s.regex) >= maxRegex {
		return nil, fmt.Errorf("the regular expression is longer than %d bytes", maxRegex-1)
	}
	if len(fields) == 3 {
		var known bool
		if s.kind, known = kinds[fields[1]]; !known {
			return nil, fmt.Errorf("%q is no file type", fields[1])
		}
	}
	switch {
	case s.context == none:
		s.context = ""
	case strings.Count(s.context, ":") < 2:
		return nil, fmt.Errorf("%q is not a context, which is user:role:type", s.context)
	}
	return s, nil
}

// kinds are the file types of a line.
var kinds = map[string]uint32{
	"--": 0o100000, "-d": 0o040000, "-l": 0o120000, "-c": 0o020000, "-b": 0o060000, "-p": 0o010000, "-s": 0o140000,
}

const (
	metaCharacters = ".^$?*+|[({])}"
	escapable      = metaCharacters + "-_," // characters that mean themselves after a backslash
)

// literalOf returns the only path that a regular expression without meta characters matches.
func literalOf(regex string) (string, bool) {
	if !strings.ContainsAny(regex, metaCharacters+`\`) {
		return regex, true
	}
	var b strings.Builder
	for i := 0; i < len(regex); i++ {
		switch {
		case strings.IndexByte(metaCharacters, regex[i]) >= 0:
			return "", false
		case regex[i] == '\\':
			if i++; i == len(regex) || strings.IndexByte(escapable, regex[i]) < 0 {
				return "", false
			}
		}
		b.WriteByte(regex[i])
	}
	return b.String(), true
}

// parseSubstitutions reads lines of two paths; libselinux passes over all others.
func parseSubstitutions(text string) (list []substitution) {
	for line := range strings.Lines(text) {
		fields := strings.FieldsFunc(line, isSpace)
		if len(fields) >= 2 && !strings.HasPrefix(fields[0], "#") {
			list = append([]substitution{{fields[0], fields[1]}}, list...)
		}
	}
	return list
}

// substitute applies the first line that is for the path.
func substitute(list []substitution, name string) string {
	for _, s := range list {
		rest, ok := strings.CutPrefix(name, s.from)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if s.to == "/" {
			rest = strings.TrimPrefix(rest, "/")
		}
		return s.to + rest
	}
	return name
}

// lookup finds the line for a path: a literal one wins over patterns, and the last one over those
// before it.
func (c *contexts) lookup(name string, mode uint32) string {
	for strings.Contains(name, "//") {
		name = strings.ReplaceAll(name, "//", "/")
	}
	if len(name) > 1 {
		name = strings.TrimSuffix(name, "/")
	}
	name = substitute(c.dist, substitute(c.local, name))
	kind := mode & 0o170000
	exact := c.literal[name]
	for i := len(exact) - 1; i >= 0; i-- {
		if exact[i].fits(kind) {
			return exact[i].context
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.machine.match(name) {
		if s := &c.patterns[i]; s.fits(kind) {
			return s.context
		}
	}
	return ""
}
