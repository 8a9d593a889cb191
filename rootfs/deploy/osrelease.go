package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"installer/rootfs/beneath"
)

// maxTextFile bounds what is read of a configuration file, in bytes.
const maxTextFile = 1 << 20

// osRelease is what is used of os-release(5).
type osRelease struct {
	ID         string
	PrettyName string
}

// readOSRelease reads the file from a deployment.
func readOSRelease(deployment *beneath.Dir) (osRelease, error) {
	data, err := deployment.ReadFile("usr/lib/os-release", maxTextFile)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = deployment.ReadFile("etc/os-release", maxTextFile)
	}
	if err != nil {
		return osRelease{}, fmt.Errorf("finding the name of the system in os-release: %w", err)
	}
	return parseOSRelease(string(data)), nil
}

// parseOSRelease reads lines NAME=value, quoted as for a shell; of repeated names the last counts.
func parseOSRelease(text string) osRelease {
	var r osRelease
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ID":
			r.ID = shellUnquote(value)
		case "PRETTY_NAME":
			r.PrettyName = shellUnquote(value)
		}
	}
	return r
}

// shellUnquote takes the quotes off one word: single ones keep everything, in double ones and outside a backslash
// keeps the character after it.
func shellUnquote(word string) string {
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

// title is how the system calls itself in boot menus.
func (r osRelease) title() (string, error) {
	name := r.PrettyName
	if name == "" {
		name = r.ID
	}
	if name == "" {
		return "", errors.New("os-release names neither PRETTY_NAME nor ID, which the boot entry's title is made of")
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", fmt.Errorf("os-release has the name %q, which holds a control character", name)
	}
	return name, nil
}
