// Package keyfile reads key files as GLib does, which libostree uses for the configuration of a
// repository, the origin of a deployment and the settings of ostree-prepare-root.
package keyfile

import (
	"fmt"
	"strings"
)

// SyntaxError reports a line that is no group, key or comment, or a key before the first group.
// GLib refuses a file that has one.
type SyntaxError struct {
	Line int // from 1
	Text string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d is no group, key or comment: %.80q", e.Line, e.Text)
}

// Parse returns the values by "group.key"; of repeated keys the last counts. Its error is a
// [*SyntaxError].
func Parse(text string) (map[string]string, error) {
	keys, group, number := map[string]string{}, "", 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		key, value, isPair := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && line[len(line)-1] == ']':
			group = line[1 : len(line)-1]
		case !isPair || group == "" || key == "":
			return nil, &SyntaxError{number, line}
		default:
			keys[group+"."+strings.TrimSpace(key)] = strings.ReplaceAll(strings.TrimSpace(value), `\\`, `\`)
		}
	}
	return keys, nil
}

// IsTrue reads a boolean as libostree does, where everything else is no.
func IsTrue(value string) bool { return value == "yes" || value == "true" || value == "1" }
