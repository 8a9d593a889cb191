// Package printable makes text that others chose (names of files, labels of images, messages of
// programs and of the guest) safe for a terminal or a log.
//
// The package escapes and shortens. The choice of the text belongs elsewhere, and so does JSON,
// which is exact.
package printable

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a line, in characters. A longer line keeps its begin and its end.
const (
	maxLine = 2000
	keepEnd = 500
)

// Line returns s as one line that a terminal only shows: line breaks, control characters,
// characters that change the direction of the text, and bytes that are no UTF-8 are escaped as in a
// Go string. A line of more than 2,000 characters loses its middle.
func Line(s string) string { return shorten(escape(s)) }

// Text returns the lines of s, each as [Line] returns it.
func Text(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Line(strings.TrimSuffix(line, "\r"))
	}
	return strings.Join(lines, "\n")
}

// Error returns the message of err: a line for each of the errors that [errors.Join] put together,
// and every other line break escaped.
func Error(err error) string {
	lines := strings.Split(structured(err), "\n")
	for i, line := range lines {
		lines[i] = shorten(line)
	}
	return strings.Join(lines, "\n")
}

// structured returns the escaped message of err, which has line breaks only between joined errors.
func structured(err error) string {
	text := err.Error()
	var children []error
	switch x := err.(type) {
	case interface{ Unwrap() []error }:
		children = x.Unwrap()
		if text == errors.Join(children...).Error() {
			parts := make([]string, 0, len(children))
			for _, child := range children {
				parts = append(parts, structured(child))
			}
			return strings.Join(parts, "\n")
		}
	case interface{ Unwrap() error }:
		children = []error{x.Unwrap()}
	}
	var b strings.Builder
	for _, child := range children {
		if child == nil || child.Error() == "" {
			continue
		}
		before, after, found := strings.Cut(text, child.Error())
		if !found {
			continue
		}
		b.WriteString(escape(before) + structured(child))
		text = after
	}
	return b.String() + escape(text)
}

// Sprintf formats as [fmt.Sprintf] does, with the text of every argument escaped as [Line] does it:
// line breaks and control characters come from format alone.
func Sprintf(format string, args ...any) string { return fmt.Sprintf(format, clean(args)...) }

// Fprintf formats as [Sprintf] does, and writes to w.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	return fmt.Fprintf(w, format, clean(args)...)
}

// clean escapes the arguments that print as text.
func clean(args []any) []any {
	cleaned := make([]any, len(args))
	for i, arg := range args {
		switch x := arg.(type) {
		case []byte:
			cleaned[i] = Line(string(x))
		case error, fmt.Stringer:
			cleaned[i] = Line(fmt.Sprint(x))
		default:
			if kind := reflect.ValueOf(arg).Kind(); kind >= reflect.Bool && kind <= reflect.Complex128 {
				cleaned[i] = arg // a number
				continue
			}
			cleaned[i] = Line(fmt.Sprint(x))
		}
	}
	return cleaned
}

// escape escapes every character that does more than show.
func escape(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unprintable reports whether a character must not reach a terminal: controls of C0 and C1,
// separators of lines, format characters such as those of direction, and characters that nobody has
// assigned.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// shorten takes out the middle of a line that is too long.
func shorten(line string) string {
	if len(line) <= maxLine {
		return line
	}
	runes := []rune(line)
	if len(runes) <= maxLine {
		return line
	}
	gone := len(runes) - maxLine
	return string(runes[:maxLine-keepEnd]) + fmt.Sprintf(" … (%d characters left out) … ", gone) + string(runes[len(runes)-keepEnd:])
}
