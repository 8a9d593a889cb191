package deploy

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultStateroot is the stateroot of an installation that names none, as in bootc.
const DefaultStateroot = "default"

// statePattern matches the names of stateroots: a component of refs, paths, kernel arguments and
// boot entries.
var statePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// kernelPattern matches the version of a kernel: it becomes part of file names and of the boot
// entry.
var kernelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+~-]*$`)

// CheckStateroot checks the name of a stateroot.
func CheckStateroot(name string) error {
	const most = 128 // leaves room for the rest of a file name
	if !statePattern.MatchString(name) || len(name) > most {
		return fmt.Errorf("stateroot %q: want letters, digits and _ . - (not first), at most %d bytes", name, most)
	}
	return nil
}

// BlobRef is the ref of the commit that holds a layer, named by the digest of its blob.
func BlobRef(digest string) (string, error) {
	esc, err := escapeRef(digest)
	return "ostree/container/blob/" + esc, err
}

// ImageRef is the ref of the merge commit of an image, named by its reference with transport, such
// as docker://quay.io/x/y:latest.
func ImageRef(reference string) (string, error) {
	esc, err := escapeRef(reference)
	return "ostree/container/image/" + esc, err
}

// escapeRef makes a name usable in a ref, by ostree-ext's rule: ASCII letters, digits and - pass; /
// passes between an alphanumeric and something else than the end; _ is doubled; all else becomes
// _HEX_.
func escapeRef(name string) (string, error) {
	if name == "" || strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name) {
		return "", fmt.Errorf("making a ref's name of %q: it is empty, holds a NUL or is not UTF-8", name)
	}
	var b strings.Builder
	previous := rune(0)
	for i, c := range name {
		last := i+utf8.RuneLen(c) == len(name)
		switch {
		case isAlnum(c) || c == '-', c == '/' && isAlnum(previous) && !last:
			b.WriteRune(c)
		case c == '_':
			b.WriteString("__")
		default:
			fmt.Fprintf(&b, "_%02X_", c)
		}
		previous = c
	}
	return b.String(), nil
}

func isAlnum(c rune) bool {
	return c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c))
}

// CheckKarg checks that arg is one kernel argument that a boot entry can hold: blanks may stand in
// double quotes only, as the kernel's own parser has it.
func CheckKarg(arg string) error {
	quoted := false
	for _, c := range arg {
		if c < ' ' || c == 0x7f || c == ' ' && !quoted {
			return fmt.Errorf("kernel argument %q holds a blank outside of double quotes, or a control character", arg)
		}
		quoted = quoted != (c == '"')
	}
	if quoted || arg == "" {
		return fmt.Errorf("kernel argument %q is empty, or a double quote in it is not closed", arg)
	}
	return nil
}
