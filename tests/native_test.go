package tests

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/tests/chunked"
	"installer/tests/layout"
)

// nativeImage makes the small image as an ostree-native one of 31 layers, with 3 more over them that
// replace and delete, an opaque directory in the place of the largest one among them.
func nativeImage(t *testing.T, edit func(layer int, entries []chunked.Entry) []chunked.Entry) (ref string, base string) {
	t.Helper()
	dir, repo := t.TempDir(), t.TempDir()
	b, err := tinyTar("amd64")
	must(t, err)
	must(t, os.WriteFile(dir+"/tiny.tar", b, 0o600))
	must(t, os.Mkdir(dir+"/tree", 0o755))
	mustCommand(t, "sh", "-euc", `
		tar -C "$1/tree" -xf "$1/tiny.tar"
		mv "$1/tree/etc" "$1/tree/usr/etc"
		mkdir "$1/tree/etc" # which the deployment fills
		for name in "$1"/tree/usr/share/many/*; do echo "$name" > "$name"; done
		ostree init --repo="$2" --mode=bare
		ostree commit --repo="$2" --branch=base --add-detached-metadata-string=signature=x --tree=dir="$1/tree"`, "sh", dir, repo)
	base = strings.TrimSpace(mustCommand(t, "ostree", "rev-parse", "--repo="+repo, "base"))
	layers, err := chunked.Layers(repo, dir, chunked.Options{Chunks: 30, Version: 1, Edit: edit})
	must(t, err)
	labels, err := chunked.Labels(layers)
	must(t, err)
	for i, files := range []map[string]string{
		{"usr/share/many/.wh..wh..opq": "", "usr/share/many/only": "only", "etc/tiny.conf": "replaced\n"},
		{"usr/share/.wh.many": "", "etc/more.conf": "more\n"},
		{"usr/share/many/again": "again", "etc/.wh.more.conf": "", "usr/share/.ostree-wh.hidden": ""},
	} {
		layers = append(layers, tarFile(t, filepath.Join(dir, fmt.Sprint("over", i)), files))
	}
	must(t, layout.Write(dir+"/oci", layers, layout.Options{Tag: "latest", Labels: labels}))
	return "oci:" + dir + "/oci:latest", base
}

// tarFile writes files as a tar.
func tarFile(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	w := tar.NewWriter(f)
	for path, content := range files {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		must(t, err)
	}
	must(t, w.Close())
	return name
}

// TestNative installs an ostree-native image whose largest directory is mapped by who reads it. The
// target is given back by one unmount, and ostree takes the system for its own.
func TestNative(t *testing.T) {
	ref, base := nativeImage(t, nil)
	dir := t.TempDir()
	raw, report := dir+"/disk.raw", dir+"/report.json"
	makeRaw(t, raw, tinySize)
	r, calls := Strace(t, BuildInstaller(t), installArgs(ref, raw, "--report", report)...)
	r.Must(t)
	mounted := mountPoints(t, calls)
	slices.Reverse(mounted)
	checkUnmounts(t, Unmounts(t, withoutQuestions(calls)), mounted)
	if source := readReport(t, report).Source; source.BaseCommit != base || source.BaseLayers != 31 {
		t.Errorf("the report has %+v, want 31 layers of %s", source, base)
	}
	root := MountRootReadOnly(t, raw)
	OstreeChecks(t, root)
	refs := mustCommand(t, "ostree", "refs", "--repo="+root+"/ostree/repo")
	if n := strings.Count(refs, "ostree/container/blob/"); n != 34 {
		t.Errorf("%d refs of layers, want 34:\n%s", n, refs)
	}
	deployment := DefaultDeployment(t, root)
	for name, want := range map[string]string{"etc/tiny.conf": "replaced\n", "etc/more.conf": "", "usr/share/many/again": "again", "usr/share/many/only": ""} {
		if got, err := os.ReadFile(filepath.Join(deployment, name)); string(got) != want || (err != nil) != (want == "") {
			t.Errorf("/%s has %q, %v; want %q", name, got, err, want)
		}
	}
	if st, err := os.Lstat(deployment + "/usr/share/hidden"); err != nil || st.Mode().Type() != os.ModeDevice|os.ModeCharDevice {
		t.Errorf("a quoted whiteout: %v, %v", st, err)
	}
	found := Run(t, "verify", raw).Stdout // it fails for want of a boot loader
	for _, check := range []string{"Repository", "Deployments", "Origins"} {
		if !strings.Contains(found, "ok           "+check+": ") {
			t.Errorf("the check %s is not passed:\n%s", check, found)
		}
	}
}

// TestNativeDamaged refuses an image with a damaged object, by its layer and entry, before anything
// is written.
func TestNativeDamaged(t *testing.T) {
	entry := ""
	ref, _ := nativeImage(t, func(layer int, entries []chunked.Entry) []chunked.Entry {
		if layer == 17 {
			i := slices.IndexFunc(entries, func(e chunked.Entry) bool { return strings.HasSuffix(e.Name, ".file") && e.Size > 0 })
			entries[i].Content, entry = []byte(strings.Repeat("x", int(entries[i].Size))), entries[i].Name
		}
		return entries
	})
	raw := t.TempDir() + "/disk.raw"
	makeRaw(t, raw, tinySize)
	for _, more := range [][]string{nil, {"--dry-run"}} {
		r := Run(t, installArgs(ref, raw, more...)...)
		if r.Code != 5 || !strings.Contains(r.Stderr, entry) || !strings.Contains(r.Stderr, ": layer sha256:") {
			t.Errorf("%q: status %d, want 5 and the entry %s:\n%s", more, r.Code, entry, r.Stderr)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(raw, &st))
	if st.Blocks != 0 {
		t.Errorf("%d blocks of the disk were written", st.Blocks)
	}
}
