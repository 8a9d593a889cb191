package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"installer/rootfs/image"
)

// TestWriteImage reads back by ostree the objects that an updater needs.
func TestWriteImage(t *testing.T) {
	x := newTarget(t)
	labels := map[string]string{"org.opencontainers.image.version": "2024.5"}
	img, tree, commit := x.imported(t, makeImage(t, labels, baseLayer(), upperLayer()), followed)
	repo := "--repo=" + x.path + "/ostree/repo"
	for key, want := range map[string]string{
		keyManifestDigest: img.ManifestDigest, keyManifest: sortedJSON(t, img.Manifest), keyImageConfig: sortedJSON(t, img.Config),
		keyImporter: ImporterVersion, keyVersion: "2024.5",
	} {
		if got := run(t, "ostree", "show", repo, "--print-metadata-key="+key, commit.String()); unquoteVariant(got) != want {
			t.Errorf("%s is %s, want %q", key, got, want)
		}
	}
	for i, layer := range img.Layers {
		ref, err := BlobRef(layer.Digest)
		if err != nil {
			t.Fatal(err)
		}
		listed := 0
		for line := range strings.Lines(run(t, "ostree", "ls", repo, "-R", ref)) {
			if strings.TrimSpace(line) != "" {
				listed++
			}
		}
		nodes := 0
		err = tree.Layers[i].Walk(func(string, *image.Node) error {
			nodes++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if listed != nodes || listed < 2 {
			t.Errorf("layer %d: its commit lists %d paths, its tree %d", i, listed, nodes)
		}
	}
	if log := run(t, "ostree", "log", repo, commit.String()); !strings.Contains(log, "2024-02-03 04:05:06 +0000") {
		t.Errorf("the commit's time is not the image's:\n%s", log)
	}
	if refs := run(t, "ostree", "refs", repo); !strings.Contains(refs, "ostree/container/image/docker_3A__2F__2F_quay_2E_io/lab/os_3A_latest\n") {
		t.Errorf("the image's ref is missing:\n%s", refs)
	}
}

// sortedJSON is a document with sorted keys and without spaces.
func sortedJSON(t *testing.T, document []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(document, &v); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(sorted)
}

// unquoteVariant takes the quotes off a string as GLib prints it, which here needs no escapes but
// of the quotes.
func unquoteVariant(s string) string {
	s = strings.TrimSpace(s)
	return s[1 : len(s)-1]
}

// TestContentEqualsOstree commits the merged tree by ostree itself, from a plain copy: the same
// content checksum.
func TestContentEqualsOstree(t *testing.T) {
	x := newTarget(t)
	_, _, commit := x.imported(t, makeImage(t, nil, baseLayer(), upperLayer()), followed)
	repo := "--repo=" + x.path + "/ostree/repo"
	copied := filepath.Join(t.TempDir(), "tree")
	run(t, "ostree", "checkout", repo, commit.String(), copied)
	again := strings.TrimSpace(run(t, "ostree", "commit", repo, "--branch=again", "--tree=dir="+copied))
	want, err := x.repo.LoadCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	shown := run(t, "ostree", "show", repo, again)
	if !strings.Contains(shown, want.ContentChecksum().String()) {
		t.Errorf("ostree's commit of the tree is\n%s\nwant content checksum %s", shown, want.ContentChecksum())
	}
}

func TestSameImageSameCommit(t *testing.T) {
	source := makeImage(t, nil, baseLayer(), upperLayer())
	_, _, first := newTarget(t).imported(t, source, followed)
	_, _, second := newTarget(t).imported(t, source, followed)
	if first != second {
		t.Errorf("two imports gave the commits %s and %s", first, second)
	}
}

// TestRootfs installs a plain directory.
func TestRootfs(t *testing.T) {
	source := t.TempDir()
	for name, text := range map[string]string{
		"usr/lib/modules/6/vmlinuz": "kernel", "usr/lib/os-release": "ID=lab\n", "etc/motd": "hello\n",
		"var/x": "", "sysroot/x": "", "dev/x": "", "proc/x": "", "sys/x": "", "run/x": "",
	} {
		if err := os.MkdirAll(filepath.Join(source, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x := newTarget(t)
	_, _, commit := x.imported(t, "rootfs:"+source, "")
	dep, err := Deploy(t.Context(), x.root, x.repo, commit, Options{Refspec: RootfsRef, Stateroot: "lab"}, x.ledger)
	if err != nil {
		t.Fatal(err)
	}
	if got := x.read(t, dep.Path+"/etc/motd"); got != "hello\n" {
		t.Errorf("/etc/motd has %q", got)
	}
	if !strings.HasSuffix(dep.EntryText, "linux /ostree/lab-"+dep.BootChecksum+"/vmlinuz-6\n") || !strings.Contains(dep.EntryText, " init=/ostree/boot.1/lab/") {
		t.Errorf("the entry of a system without initramfs:\n%s", dep.EntryText)
	}
	if status := run(t, "ostree", "admin", "status", "--sysroot="+x.path); !strings.Contains(status, "origin refspec: "+RootfsRef) {
		t.Errorf("ostree admin status says:\n%s", status)
	}
	if _, err := os.Stat(x.path + "/ostree/deploy/lab/var/log"); err != nil {
		t.Errorf("a system without tmpfiles.d has no /var/log: %v", err)
	}
	run(t, "ostree", "fsck", "--repo="+x.path+"/ostree/repo")
}

// The record has the names, the times and the order of keys that bootc writes.
func TestAleph(t *testing.T) {
	x := newTarget(t)
	labels := map[string]string{"version": "3", labelCreated: "2026-01-02T04:04:05.5+01:00"}
	img, _, _ := x.imported(t, makeImage(t, labels, baseLayer()), followed)
	if err := WriteAleph(x.root, NewAleph(img, "docker://quay.io/lab/source:1", followed, "6.1.0", "disabled"), x.ledger); err != nil {
		t.Fatal(err)
	}
	want := `{"digest":"` + img.ManifestDigest + `","image":"quay.io/lab/source:1","kernel":"6.1.0",` +
		`"labels":{"org.opencontainers.image.created":"2026-01-02T04:04:05.5+01:00","version":"3"},"selinux":"disabled",` +
		`"target-image":"` + strings.TrimPrefix(followed, "docker://") + `","timestamp":"2026-01-02T03:04:05.500Z","version":"3"}`
	if got := x.read(t, AlephPath); got != want {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
	img.Labels = nil
	for source, want := range map[string]string{"oci:/tmp/x:y": "", "oci:/var/x:y": "/var/x:y", "containers-storage:localhost/a": "localhost/a", "": img.Ref.Name} {
		if strings.HasPrefix(want, "/tmp") {
			want = ""
		}
		if a := NewAleph(img, source, "", "6.1.0", "disabled"); a.Image != want || a.Timestamp != nil || a.Version != nil {
			t.Errorf("%q: %+v, want the image %q", source, a, want)
		}
	}
}

func TestTimestamps(t *testing.T) {
	for in, want := range map[string]string{
		"2026-01-02T03:04:05Z": "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.0Z": "2026-01-02T03:04:05Z",
		"2026-01-02T03:04:05.12Z": "2026-01-02T03:04:05.120Z", "2026-01-02T03:04:05.000001Z": "2026-01-02T03:04:05.000001Z",
		"2026-01-02T03:04:05.0000001Z": "2026-01-02T03:04:05.000000100Z",
	} {
		when, err := time.Parse(time.RFC3339, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := timestampText(when); got != want {
			t.Errorf("%s is written as %s, want %s", in, got, want)
		}
	}
}

func TestCanonicalJSON(t *testing.T) {
	for in, want := range map[string]string{
		"{ \"b\": [1, 2.0],\n \"a\": \"\\u00fc<\\/\" }": `{"a":"ü</","b":[1,2]}`, `{"a":1e999}`: `{"a":1e999}`, "no JSON": "no JSON",
	} {
		if got := string(canonicalJSON([]byte(in))); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}
