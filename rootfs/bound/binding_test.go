package bound

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// tree binds one quadlet.
func tree(link, quadlet string) fstest.MapFS {
	return fstest.MapFS{
		Dir + "/" + link:                       {Mode: fs.ModeSymlink, Data: []byte("../../../share/containers/systemd/quadlet")},
		"usr/share/containers/systemd/quadlet": {Data: []byte(quadlet)},
	}
}

func TestFind(t *testing.T) {
	const digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for name, c := range map[string]struct {
		link, quadlet string
		image         string
		names         string
	}{
		"image":             {"a.image", "[Image]\nImage=quay.io/a/b:c\n", "quay.io/a/b:c", "quay.io/a/b:c"},
		"container":         {"a.container", "[Unit]\nImage=no\n[Container]\n# Image=no\n; Image=no\n Image = quay.io/a/b \nExec=x=y\n[Install]\nImage=no", "quay.io/a/b", "quay.io/a/b:latest"},
		"the last counts":   {"a.container", "[Container]\nImage=quay.io/a/b\n[Service]\n[Container]\nImage=quay.io/a/c:1", "quay.io/a/c:1", "quay.io/a/c:1"},
		"continued":         {"a.container", "[Container]\nExec=a \\\n# amid\nImage=no\nImage=quay.io/a/c:1", "quay.io/a/c:1", "quay.io/a/c:1"},
		"digest":            {"a.image", "[Image]\nImage=quay.io/a/b@" + digest, "quay.io/a/b@" + digest, "quay.io/a/b@" + digest},
		"tag and digest":    {"a.image", "[Image]\nImage=quay.io/a/b:c@" + digest, "quay.io/a/b:c@" + digest, "quay.io/a/b@" + digest},
		"short":             {"a.image", "[Image]\nImage=app", "app", "localhost/app:latest docker.io/library/app:latest"},
		"short with a path": {"a.image", "[Image]\nImage=a/b:c", "a/b:c", "localhost/a/b:c docker.io/a/b:c"},
		"local":             {"a.image", "[Image]\nImage=localhost/a", "localhost/a", "localhost/a:latest"},
		"port":              {"a.image", "[Image]\nImage=host:5000/a", "host:5000/a", "host:5000/a:latest"},
		"other credentials": {"a.container", "[Container]\nImage=quay.io/a/b:c\nAuthFile=/x", "quay.io/a/b:c", "quay.io/a/b:c"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Find(tree(c.link, c.quadlet))
			if err != nil || len(found) != 1 {
				t.Fatalf("%v, %v", found, err)
			}
			var names []string
			for _, n := range found[0].Names {
				names = append(names, n.String())
			}
			if b := found[0]; b.File != Dir+"/"+c.link || b.Image != c.image || strings.Join(names, " ") != c.names {
				t.Errorf("%+v, names %q", b, names)
			}
		})
	}
	if found, err := Find(fstest.MapFS{"usr/lib/os-release": {}}); len(found) != 0 || err != nil {
		t.Errorf("nothing bound gives %v, %v", found, err)
	}
}

func TestFindRefuses(t *testing.T) {
	file := tree("a.image", "")
	file[Dir+"/b.image"] = &fstest.MapFile{Data: []byte("[Image]\nImage=quay.io/a/b:c\n")}
	delete(file, Dir+"/a.image")
	for want, fsys := range map[string]fs.ReadLinkFS{
		"no symbolic link":         file,
		"suffix .image nor":        tree("a.conf", "[Image]\nImage=quay.io/a/b:c\n"),
		"AuthFile= is not":         tree("a.image", "[Image]\nImage=quay.io/a/b:c\nAuthFile=/x"),
		"no Image= in a section":   tree("a.image", "[Container]\nImage=quay.io/a/b:c"),
		"specifiers of systemd":    tree("a.image", "[Image]\nImage=quay.io/a/%%%b:c"),
		"unfinished=%: specifiers": tree("a.image", "[Image]\nImage=unfinished=%"),
		"names another quadlet":    tree("a.container", "[Container]\nImage=b.image"),
		"invalid reference format": tree("a.container", "[Container]\nImage=docker://quay.io/a/b"),
		"not exist":                fstest.MapFS{Dir + "/a.image": {Mode: fs.ModeSymlink, Data: []byte("nowhere")}},
	} {
		if found, err := Find(fsys); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), Dir+"/") {
			t.Errorf("want %q, got %v, %v", want, found, err)
		}
	}
}

func TestSpecifiers(t *testing.T) {
	for value, want := range map[string]string{"a": "a", "%%a%%%%": "%a%%", "": ""} {
		if got, err := resolveSpecifiers(value); got != want || err != nil {
			t.Errorf("%q gives %q, %v", value, got, err)
		}
	}
}
