package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/rootfs/image"
	"installer/tests/chunked"
	"installer/tests/layout"
)

// contexts is a policy that labels every path, by the directories that matter.
const contexts = "/.* u:object_r:any_t:s0\n/usr/bin/.* -- u:object_r:bin_t:s0\n/usr/etc/.* u:object_r:etc_t:s0\n"

// labelledCommit makes a repository with a commit that its own policy labels.
func labelledCommit(t *testing.T) (repo string) {
	t.Helper()
	root, repo := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		"usr/bin/base": "base", "usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = yes\n", "usr/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=p\n",
		"usr/etc/selinux/p/contexts/files/file_contexts": contexts, "usr/etc/selinux/p/policy/policy.33": "binary",
	} {
		name = filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "--repo=" + repo, "--mode=bare"},
		{"commit", "--repo=" + repo, "--branch=base", "--selinux-policy=" + root, "--tree=dir=" + root},
	} {
		if out, err := exec.Command("ostree", args...).CombinedOutput(); err != nil {
			t.Fatalf("ostree %q: %v\n%s", args, err, out)
		}
	}
	return repo
}

// A layer over an ostree commit is labelled by the policy of the commit, and then by that of the
// merged tree, which may have no label for a path, or be off. The commit keeps its labels.
func TestLabelOverCommit(t *testing.T) {
	const anyT, binT, etcT = "u:object_r:any_t:s0", "u:object_r:bin_t:s0", "u:object_r:etc_t:s0"
	const local = "etc/selinux/p/contexts/files/file_contexts.local"
	off := map[string]string{"etc/selinux/config": "SELINUX=disabled\nSELINUXTYPE=p\n"}
	repo := labelledCommit(t)
	for name, c := range map[string]struct {
		files  map[string]string
		policy bool
		want   map[string]string
	}{
		"the same policy": {nil, true, map[string]string{"usr/bin/new": binT, "usr/bin/base": binT, "usr/etc/new": etcT, "app": anyT, "app/new": anyT}},
		"another label": {map[string]string{local: "/usr/bin/.* -- u:object_r:new_t:s0\n"}, true,
			map[string]string{"usr/bin/new": "u:object_r:new_t:s0", "usr/bin/base": "u:object_r:new_t:s0", "app/new": anyT}},
		"no label": {map[string]string{local: "/usr/bin/.* -- <<none>>\n/app(/.*)? <<none>>\n"}, true,
			map[string]string{"usr/bin/new": binT, "usr/bin/base": binT, "app": anyT, "app/new": anyT}},
		"no policy":        {off, false, map[string]string{"usr/bin/new": binT, "usr/bin/base": binT, "usr/etc/selinux/config": etcT, "app": anyT, "app/new": anyT}},
		"no policy at all": {map[string]string{"etc/.wh.selinux": ""}, false, map[string]string{"usr/bin/new": binT, "usr/bin/base": binT, "app": anyT}},
	} {
		t.Run(name, func(t *testing.T) {
			inv, p := labelledImage(t, repo, c.files)
			if (p != nil) != c.policy {
				t.Errorf("the policy is %v", p)
			}
			layers := inv.Tree.Layers
			for path, want := range c.want {
				if got := inv.Tree.Lookup(path).Label(); got != want {
					t.Errorf("/%s has the label %q, want %q", path, got, want)
				}
				if n := layers[len(layers)-1].Lookup(path); n != nil && n.Label() != want {
					t.Errorf("/%s has the label %q in its layer, want %q", path, n.Label(), want)
				}
			}
			if got := layers[0].Lookup("usr/bin/base").Label(); got != binT {
				t.Errorf("a file of the commit has the label %q, want %q", got, binT)
			}
		})
	}
}

// labelledImage scans and labels an image of the commit and a layer with some files, and more.
func labelledImage(t *testing.T, repo string, more map[string]string) (*image.Inventory, *Policy) {
	t.Helper()
	dir := t.TempDir()
	names, err := chunked.Layers(repo, dir, chunked.Options{Chunks: 1, Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := chunked.Labels(names)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, files := range []map[string]string{{"usr/bin/new": "new", "etc/new": "new", "app/new": "new"}, more} {
		for name, content := range files {
			err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}))
			_, writeErr := w.Write([]byte(content))
			err = errors.Join(err, writeErr)
		}
	}
	over := filepath.Join(dir, "over.tar")
	if err = errors.Join(err, w.Close(), os.WriteFile(over, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := layout.Write(filepath.Join(dir, "oci"), append(names, over), layout.Options{Tag: "latest", Labels: labels}); err != nil {
		t.Fatal(err)
	}
	img, err := image.Open(t.Context(), image.Ref{Transport: image.TransportOCI, Name: filepath.Join(dir, "oci") + ":latest"}, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	s := &Source{Image: img, log: noLog{}}
	inv, err := s.Scan(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Label(inv)
	if err != nil {
		t.Fatal(strings.TrimSpace(err.Error()))
	}
	return inv, p
}
