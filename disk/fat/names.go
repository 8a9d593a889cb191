package fat

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// splitPath splits a path into names that FAT and the library can take.
func splitPath(p string) ([]string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+p), "/")
	if clean == "" {
		return nil, fmt.Errorf("%q names no file", p)
	}
	names := strings.Split(clean, "/")
	for _, n := range names {
		if err := checkName(n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// checkName refuses names that are not possible on FAT, or that the library would spoil: it counts
// bytes for characters, and makes an empty short name of one that begins with a dot.
func checkName(name string) error {
	if len(name) > 255 {
		return fmt.Errorf("name %q is longer than 255 characters", name)
	}
	for _, c := range name {
		if c < 0x20 || c > 0x7e || strings.ContainsRune(`"*/:<>?\|`, c) {
			return fmt.Errorf("name %q has a character that is not possible on FAT", name)
		}
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, " ") ||
		strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return fmt.Errorf("name %q begins or ends with a dot or a blank, which FAT loses", name)
	}
	return nil
}

// checkLabel refuses volume labels that are not plain (Microsoft FAT specification, BS_VolLab).
func checkLabel(label string) error {
	if label == "" || len(label) > 11 {
		return fmt.Errorf("FAT label %q: 1 to 11 characters are possible", label)
	}
	for _, c := range label {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_ ", c) {
			return fmt.Errorf("FAT label %q: only A-Z, 0-9, '-', '_' and blanks are possible", label)
		}
	}
	return nil
}

// shortNamed is the part of the library's directory entries that its interface leaves out.
type shortNamed interface{ ShortName() string }

// lookup finds a name in a directory, without regard to case. A name that equals the short name of
// another entry is refused: the library would take that entry for it.
func (w *Writer) lookup(dir, name string) (fs.DirEntry, error) {
	entries, err := w.fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			return e, nil
		}
		short, err := shortOf(e)
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(short, name) {
			return nil, fmt.Errorf("%s is the short name of %s", name, path.Join(dir, e.Name()))
		}
	}
	return nil, nil
}

// distinct makes sure that a new entry got a short name of its own: the library numbers only those
// that it had to shorten before the dot. If it did not, the file system is not fit to be used any
// more.
func (w *Writer) distinct(dir, name string) error {
	entries, err := w.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	owner := map[string]string{}
	for _, e := range entries {
		short, err := shortOf(e)
		if err != nil {
			return err
		}
		if other, taken := owner[short]; taken {
			w.broken = fmt.Errorf("%s and %s in %s would have the same short name %s", other, e.Name(), dir, short)
			return w.broken
		}
		owner[short] = e.Name()
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			return nil
		}
	}
	return fmt.Errorf("%s is not in %s after it was made", name, dir)
}

func shortOf(e fs.DirEntry) (string, error) {
	info, err := e.Info()
	if err != nil {
		return "", err
	}
	short, ok := info.(shortNamed)
	if !ok {
		return "", fmt.Errorf("the short name of %s cannot be read", e.Name())
	}
	return short.ShortName(), nil
}
