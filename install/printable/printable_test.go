package printable

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain text, äöü 漢字":       "plain text, äöü 漢字",
		`C:\path`:                  `C:\path`,
		"a\nb\rc\td":               `a\nb\rc\td`,
		"\x1b[31mred\x1b[0m":       `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\a":           `\x1b]0;title\a`,
		"\u009b31m":                `\u009b31m`,
		"\x9b31m":                  `\x9b31m`,
		"left\u202eright\u2066x":   `left\u202eright\u2066x`,
		"zero\u200bwidth\ufeff":    `zero\u200bwidth\ufeff`,
		"\u2028\u2029\u0085":       `\u2028\u2029\u0085`,
		"bad\xff\xc3":              `bad\xff\xc3`,
		"replacement \ufffd stays": "replacement \ufffd stays",
		"nul\x00del\x7f":           `nul\x00del\x7f`,
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestLongLine(t *testing.T) {
	got := Line("begin" + strings.Repeat("ä", 8000) + "end")
	if n := utf8.RuneCountInString(got); n > maxLine+50 || !strings.HasPrefix(got, "begin") || !strings.HasSuffix(got, "end") ||
		!strings.Contains(got, "(6008 characters left out)") {
		t.Errorf("%d characters: %s", n, got)
	}
	if exact := strings.Repeat("ä", maxLine); Line(exact) != exact {
		t.Error("a line of the greatest length was shortened")
	}
}

func TestText(t *testing.T) {
	if got, want := Text("a\x1b\r\nb\n"), "a\\x1b\nb\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Only errors.Join makes a new line: a name with a line break cannot forge one.
func TestError(t *testing.T) {
	name := &fs.PathError{Op: "open", Path: "x\ninstaller: error: forged", Err: fs.ErrNotExist}
	const clean = `open x\ninstaller: error: forged: file does not exist`
	both := errors.Join(fmt.Errorf("step: %w", name), errors.New("second"))
	for want, err := range map[string]error{
		clean:                                 name,
		"step: " + clean:                      fmt.Errorf("step: %w", name),
		"step: " + clean + "\nsecond":         both,
		"outer: step: " + clean + "\nsecond":  fmt.Errorf("outer: %w", both),
		"a " + clean + ` b\x1b second \n end`: fmt.Errorf("a %w b\x1b %w \n end", name, errors.New("second")),
	} {
		if got := Error(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Line breaks and escapes of the format count, those of the arguments do not.
func TestSprintf(t *testing.T) {
	got := Sprintf("\x1b[1m%s %-4s|%d %v %s %.1f\n", "a\nb", "c", 7, errors.New("e\x1b"), []string{"x\r"}, 1.5)
	if want := "\x1b[1ma\\nb c   |7 e\\x1b [x\\r] 1.5\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whatever comes in, nothing that comes out moves a cursor.
func FuzzLine(f *testing.F) {
	f.Add("\x1b[2J\u202e\xff\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := Line(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unprintable) {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
