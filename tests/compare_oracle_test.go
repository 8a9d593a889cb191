package tests

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a small tree with every kind of file that CompareTrees looks at.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"usr/etc", "etc", "dev"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	must(t, os.WriteFile(root+"/usr/file", []byte("content"), 0o644))
	must(t, os.WriteFile(root+"/usr/other", []byte("other"), 0o644))
	must(t, os.Link(root+"/usr/file", root+"/usr/link"))
	must(t, os.Symlink("file", root+"/usr/symlink"))
	must(t, unix.Lsetxattr(root+"/usr/other", "user.test", []byte("v"), 0))
	return root
}

func TestCompareTrees(t *testing.T) {
	rules := Rules{Emptied: []string{"dev"}}
	if diffs, err := compareTrees(tree(t), tree(t), rules); err != nil || len(diffs) > 0 {
		t.Fatalf("two equal trees differ: %q (%v)", diffs, err)
	}
	for name, spoil := range map[string]func(root string) error{
		"missing":  func(r string) error { return os.Remove(r + "/usr/other") },
		"extra":    func(r string) error { return os.WriteFile(r+"/usr/extra", nil, 0o644) },
		"in dev":   func(r string) error { return os.WriteFile(r+"/dev/extra", nil, 0o644) },
		"content":  func(r string) error { return os.WriteFile(r+"/usr/other", []byte("OTHER"), 0o644) },
		"size":     func(r string) error { return os.WriteFile(r+"/usr/other", []byte("longer one"), 0o644) },
		"setuid":   func(r string) error { return os.Chmod(r+"/usr/other", 0o644|os.ModeSetuid) },
		"dir mode": func(r string) error { return os.Chmod(r+"/usr/etc", 0o700) },
		"owner":    func(r string) error { return os.Chown(r+"/usr/other", 7, 0) },
		"group":    func(r string) error { return os.Lchown(r+"/usr/symlink", 0, 7) },
		"xattr":    func(r string) error { return unix.Lsetxattr(r+"/usr/other", "user.test", []byte("w"), 0) },
		"no xattr": func(r string) error { return unix.Lremovexattr(r+"/usr/other", "user.test") },
		"target": func(r string) error {
			return errors.Join(os.Remove(r+"/usr/symlink"), os.Symlink("other", r+"/usr/symlink"))
		},
		"unlinked": func(r string) error {
			return errors.Join(os.Remove(r+"/usr/link"), os.WriteFile(r+"/usr/link", []byte("content"), 0o644))
		},
		"type": func(r string) error { return errors.Join(os.Remove(r+"/usr/other"), os.Mkdir(r+"/usr/other", 0o644)) },
	} {
		got, want := tree(t), tree(t)
		must(t, spoil(got))
		if diffs, err := compareTrees(got, want, rules); err != nil || len(diffs) != 1 {
			t.Errorf("%s: differences %q (%v), want one", name, diffs, err)
		}
	}
	if _, err := compareTrees(tree(t), t.TempDir(), rules); err == nil {
		t.Error("an empty oracle was taken for one")
	}
}

func TestCompareTreesMoved(t *testing.T) {
	got, oracle := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(got+"/usr/etc", 0o755))
	must(t, os.MkdirAll(got+"/etc", 0o755))
	must(t, os.WriteFile(got+"/usr/etc/conf", []byte("x"), 0o644))
	must(t, os.WriteFile(got+"/etc/changed-by-the-machine", nil, 0o644))
	must(t, os.MkdirAll(oracle+"/etc", 0o755))
	must(t, os.MkdirAll(oracle+"/usr", 0o755))
	must(t, os.WriteFile(oracle+"/etc/conf", []byte("x"), 0o644))
	if diffs, err := compareTrees(got, oracle, DeploymentRules()); err != nil || len(diffs) > 0 {
		t.Errorf("differences %q (%v)", diffs, err)
	}
}
