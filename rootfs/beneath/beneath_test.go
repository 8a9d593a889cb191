package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// noLedger accounts for nothing.
type noLedger struct{}

func (noLedger) Opened(string, string) func() { return func() {} }

// target returns a directory, and a file beside it that nothing may change.
func target(t *testing.T) (dir *Dir, path, precious string) {
	t.Helper()
	top := t.TempDir()
	path, precious = filepath.Join(top, "root"), filepath.Join(top, "precious")
	if err := errors.Join(os.Mkdir(path, 0o700), os.WriteFile(precious, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Of(f, noLedger{}), path, precious
}

// Whatever component of a path a hostile tree has made a link, nothing outside changes, and nothing
// that it leads to.
func TestNothingIsWrittenThroughALink(t *testing.T) {
	for name, shape := range map[string]func(path, precious string) error{
		"a parent leads out":           func(p, _ string) error { return os.Symlink("..", filepath.Join(p, "a")) },
		"a parent leads out, absolute": func(p, precious string) error { return os.Symlink(filepath.Dir(precious), filepath.Join(p, "a")) },
		"a parent leads elsewhere": func(p, _ string) error {
			return errors.Join(os.Mkdir(filepath.Join(p, "other"), 0o755), os.Symlink("other", filepath.Join(p, "a")))
		},
		"a parent is a file": func(p, _ string) error { return os.WriteFile(filepath.Join(p, "a"), nil, 0o644) },
		"the file is a link": func(p, precious string) error {
			return errors.Join(os.Mkdir(filepath.Join(p, "a"), 0o755), os.Symlink(precious, filepath.Join(p, "a/precious")))
		},
		"the file is a hard link": func(p, precious string) error {
			return errors.Join(os.Mkdir(filepath.Join(p, "a"), 0o755), os.Link(precious, filepath.Join(p, "a/precious")))
		},
		"the file is a magic link": func(p, precious string) error {
			return errors.Join(os.Mkdir(filepath.Join(p, "a"), 0o755), os.Symlink("/proc/self/root"+precious, filepath.Join(p, "a/precious")))
		},
	} {
		d, path, precious := target(t)
		if err := shape(path, precious); err != nil {
			t.Fatal(err)
		}
		mkdirErr := d.MkdirAll("a", 0o755)
		writeErr := d.WriteFile("a/precious", []byte("new"), 0o644)
		replaceErr := d.Replace("a/precious", strings.NewReader("new"), 3, 0o644)
		linkErr := d.Symlink("new", "a/precious2")
		if got, err := os.ReadFile(precious); err != nil || string(got) != "precious" {
			t.Errorf("%s: the file outside has %q (%v)", name, got, err)
		}
		if entries, err := os.ReadDir(filepath.Dir(precious)); err != nil || len(entries) != 2 {
			t.Errorf("%s: outside there are %v (%v)", name, entries, err)
		}
		if strings.HasPrefix(name, "a parent") {
			for _, err := range []error{mkdirErr, writeErr, replaceErr, linkErr} {
				if err == nil {
					t.Errorf("%s: mkdir %v, write %v, replace %v, link %v", name, mkdirErr, writeErr, replaceErr, linkErr)
					break
				}
			}
			continue
		}
		info, err := os.Lstat(filepath.Join(path, "a/precious"))
		if mkdirErr != nil || writeErr == nil || replaceErr != nil || linkErr != nil || err != nil || !info.Mode().IsRegular() || info.Size() != 3 {
			t.Errorf("%s: mkdir %v, write %v, replace %v, link %v; it is %v (%v)", name, mkdirErr, writeErr, replaceErr, linkErr, info, err)
		}
	}
}

// New entries have exactly the mode that was asked for, whatever the umask, and inherit no access
// control list.
func TestModes(t *testing.T) {
	d, path, _ := target(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	if err := errors.Join(d.MkdirAll("a/b", 0o755), d.WriteFile("a/b/c", []byte("x"), 0o644), d.Replace("a/b/c", strings.NewReader("yy"), 2, 0o640)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"a": 0o755, "a/b": 0o755, "a/b/c": 0o640} {
		if info, err := os.Lstat(filepath.Join(path, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", name, info.Mode(), err, want)
		}
	}
	if err := d.Replace("short", strings.NewReader("x"), 2, 0o644); err == nil {
		t.Error("a content shorter than announced was accepted")
	}
}
