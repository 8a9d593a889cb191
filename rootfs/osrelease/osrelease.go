// Package osrelease reads os-release(5), by which a system names itself.
//
// It has the file's format, its places in a tree, and the title that a boot entry makes of it.
package osrelease

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSize bounds the file, in bytes.
const maxSize = 1 << 20

// Release holds the values that are used here.
type Release struct {
	ID         string
	PrettyName string
}

// ErrNoName is the error of a file that gives the system no name: ostree deploys no tree with such
// a file.
var ErrNoName = errors.New("it has neither PRETTY_NAME nor ID, of which ostree makes the title of a boot entry")

// Paths lists where a tree has the file, in ostree's order.
func Paths() []string { return []string{"usr/lib/os-release", "etc/os-release"} }

// Read reads the file of a tree.
func Read(tree fs.FS) (Release, error) {
	var file fs.File
	var err error
	for _, name := range Paths() {
		if file, err = tree.Open(name); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return Release{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return Release{}, err
	}
	if len(data) > maxSize {
		return Release{}, errors.New("it has more than a mebibyte")
	}
	r := Parse(string(data))
	if r.Name() == "" {
		return r, ErrNoName
	}
	return r, nil
}

// Parse reads lines NAME=value, quoted as for a shell; of repeated names the last counts.
func Parse(text string) Release {
	var r Release
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ID":
			r.ID = unquote(value)
		case "PRETTY_NAME":
			r.PrettyName = unquote(value)
		}
	}
	return r
}

// unquote takes the quotes off one word: single ones keep everything, in double ones and outside a
// backslash keeps the character after it.
func unquote(word string) string {
	var b strings.Builder
	var quote, previous rune
	for _, c := range word {
		switch {
		case previous == '\\':
			b.WriteRune(c)
			previous = 0
			continue
		case c == '\\' && quote != '\'':
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		default:
			b.WriteRune(c)
		}
		previous = c
		if quote == '\'' {
			previous = 0
		}
	}
	return b.String()
}

// Name is how the system calls itself: PRETTY_NAME, else ID.
func (r Release) Name() string {
	if r.PrettyName != "" {
		return r.PrettyName
	}
	return r.ID
}

// Title is the name as it can stand in a boot entry.
func (r Release) Title() string { return Clean(r.Name()) }

// Clean replaces the characters of a text for a boot entry that not every boot loader shows as they
// are: GRUB reads the entry as a script, in which quotes and some other characters have a meaning
// of their own.
func Clean(text string) string {
	const most = 200
	odd := strings.Count(text, `"`)%2 != 0
	title := strings.Map(func(c rune) rune {
		switch {
		case c == '\'' || c == '"' && odd:
			return '’'
		case c == '&':
			return '+'
		case strings.ContainsRune(`\$;|<>{}#`, c):
			return '-'
		case !unicode.IsPrint(c):
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "-"))
	for len(title) > most {
		_, size := utf8.DecodeLastRuneInString(title)
		title = title[:len(title)-size]
	}
	return strings.TrimSpace(title)
}
