package bootloader

import (
	_ "embed"
	"fmt"
	"strings"
)

// grubConfigText is the configuration, with @UUID@ and @HINT@ to be filled in.
//
//go:embed grub.cfg.in
var grubConfigText string

// MaxEntryNumber is the highest number of a boot entry (N of ostree-N.conf) that GRUB's
// configuration looks for.
const MaxEntryNumber = 99

// grubConfig fills the configuration in.
func grubConfig(t Target) ([]byte, error) {
	return fillConfig(grubConfigText, t.BootUUID, t.BootPartition, "@COMMANDS@", strings.Join(lateModules(), " "))
}

// ArgumentError reports a line of a boot entry that GRUB would not read as it is written: GRUB runs
// the entry as a script of its own language, in which some characters have another meaning.
type ArgumentError struct {
	Key    string // of the boot entry, such as "options"
	Word   string // that cannot be carried
	Reason string
}

func (e *ArgumentError) Error() string {
	return fmt.Sprintf("GRUB cannot carry %q in %q of the boot entry: %s; leave it out, or use --bootloader %s",
		e.Word, e.Key, e.Reason, SystemdBoot)
}

// CheckEntry checks that GRUB reads the entry as it is meant; the error is an *ArgumentError. Words
// in balanced double quotes are carried, and so are characters that are special in other languages:
// = , : @ % ( ) [ ] ~ ! * ?
func CheckEntry(e Entry) error {
	for line := range strings.Lines(e.Text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if err := checkGRUBValue(key, value); err != nil {
			return err
		}
	}
	return nil
}

// CheckArguments checks that GRUB carries the kernel arguments; the error is an *ArgumentError. It
// is there to refuse them before anything is written.
func CheckArguments(args []string) error {
	for _, arg := range args {
		if err := checkGRUBValue("options", arg); err != nil {
			return err
		}
	}
	return nil
}

func checkGRUBValue(key, value string) error {
	quoted, wordStart := false, true
	for i, c := range value {
		reason := ""
		switch {
		case c == '\n':
			reason = "a line ends there"
		case c == '$' || c == '\\' || c == '\'' && !quoted:
			reason = fmt.Sprintf("%q has a meaning of its own in GRUB's scripts", c)
		case strings.ContainsRune(";&|<>{}", c) && !quoted:
			reason = fmt.Sprintf("%q outside of double quotes has a meaning of its own in GRUB's scripts", c)
		case c == '\'':
			reason = "a single quote cannot be handed on to the kernel"
		case c == '#' && wordStart && !quoted:
			reason = "a comment begins there"
		case c == '"':
			quoted = !quoted
		}
		if reason != "" {
			return &ArgumentError{Key: key, Word: wordAround(value, i), Reason: reason}
		}
		wordStart = c == ' ' || c == '\t'
	}
	if quoted {
		return &ArgumentError{Key: key, Word: value, Reason: "a double quote is not closed"}
	}
	return nil
}

// wordAround returns the blank-separated word that byte i of s belongs to.
func wordAround(s string, i int) string {
	start := strings.LastIndexAny(s[:i], " \t") + 1
	end := strings.IndexAny(s[i:], " \t")
	if end < 0 {
		return s[start:]
	}
	return s[start : i+end]
}
