package system

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"installer/install/choice"
	"installer/rootfs/beneath"
)

// noLog takes notes and accounts of nobody.
type noLog struct{}

func (noLog) Note(string, ...any)          {}
func (noLog) Progress(int64, int64)        {}
func (noLog) Opened(string, string) func() { return func() {} }

// The settings of an installation go to files of the deployment's own, whatever the image has made
// of their paths. A file of the deployment is another name of an object of the repository, which
// must keep its content.
func TestSettingsAreWrittenThroughNoLink(t *testing.T) {
	link := func(target, name string) func(string, string) error {
		return func(root, _ string) error { return os.Symlink(target, filepath.Join(root, name)) }
	}
	hard := func(name string) func(string, string) error {
		return func(root, object string) error { return os.Link(object, filepath.Join(root, name)) }
	}
	all := func(steps ...func(string, string) error) func(string, string) error {
		return func(root, object string) (err error) {
			for _, step := range steps {
				err = errors.Join(err, step(root, object))
			}
			return err
		}
	}
	dir := func(name string) func(string, string) error {
		return func(root, _ string) error { return os.MkdirAll(filepath.Join(root, name), 0o755) }
	}
	for name, c := range map[string]struct {
		shape func(root, object string) error
		fails bool
	}{
		"plain":                          {shape: dir("etc/tmpfiles.d")},
		"no tmpfiles.d":                  {shape: dir("etc")},
		"etc is a link out":              {shape: link("..", "etc"), fails: true},
		"etc is a link to usr/etc":       {shape: all(dir("usr/etc/tmpfiles.d"), link("usr/etc", "etc")), fails: true},
		"tmpfiles.d is a link":           {shape: all(dir("etc"), dir("usr/tmp"), link("../usr/tmp", "etc/tmpfiles.d")), fails: true},
		"tmpfiles.d is a link to itself": {shape: all(dir("etc"), link("tmpfiles.d", "etc/tmpfiles.d")), fails: true},
		"the keys are a link":            {shape: all(dir("etc/tmpfiles.d"), link("../../../object", "etc/tmpfiles.d/bootc-root-ssh.conf"))},
		"the keys are an object":         {shape: all(dir("etc/tmpfiles.d"), hard("etc/tmpfiles.d/bootc-root-ssh.conf"))},
		"the keys are a directory":       {shape: dir("etc/tmpfiles.d/bootc-root-ssh.conf/x"), fails: true},
		"fstab is a link out":            {shape: all(dir("etc"), link("../../object", "etc/fstab"))},
		"fstab is an object":             {shape: all(dir("etc"), hard("etc/fstab"))},
	} {
		top := t.TempDir()
		root, object := filepath.Join(top, "root"), filepath.Join(top, "object")
		if err := errors.Join(os.Mkdir(root, 0o755), os.WriteFile(object, []byte("# object\n"), 0o644), c.shape(root, object)); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		s := New(&choice.Choice{RootKeys: "f~ /root/.ssh/authorized_keys 600 root root - eA==\n", BootSpec: "UUID=1"},
			root, beneath.Of(f, noLog{}), nil, nil, noLog{})
		if err = s.writeSettings(s.root); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		for _, file := range []string{choice.RootKeysPath, choice.FstabPath} {
			if info, err := os.Lstat(filepath.Join(root, file)); !c.fails && (err != nil || !info.Mode().IsRegular()) {
				t.Errorf("%s: /%s is %v, %v", name, file, info, err)
			}
		}
		entries, err := os.ReadDir(top)
		if got, readErr := os.ReadFile(object); errors.Join(err, readErr) != nil || string(got) != "# object\n" || len(entries) != 2 {
			t.Errorf("%s: the object has %q, beside it there are %v (%v, %v)", name, got, entries, err, readErr)
		}
		f.Close()
	}
}
