package tests

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// atChunk edits the entries of one layer of a commit from its first file object with a content.
func atChunk(edit func(entries []chunked.Entry, at int) []chunked.Entry) func(int, []chunked.Entry) []chunked.Entry {
	return func(layer int, entries []chunked.Entry) []chunked.Entry {
		if layer != 17 {
			return entries
		}
		return edit(entries, slices.IndexFunc(entries, func(e chunked.Entry) bool { return strings.HasSuffix(e.Name, ".file") && e.Size > 0 }))
	}
}

// damagedChunk changes the blob of a chunk.
func damagedChunk(t *testing.T) string {
	t.Helper()
	ref, _ := nativeImage(t, nil)
	dir, _ := splitRef(ref)
	_, manifest, _, err := layout.Read(dir)
	must(t, err)
	blob := filepath.Join(dir, "blobs/sha256", manifest.Layers[17].Digest.Encoded())
	data, err := os.ReadFile(blob)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(blob, data, 0o644))
	return ref
}

// A base commit that misses an object, a chunk with a wrong checksum, a policy with a broken line, and
// a signed image without a key are the source's faults, and refused before anything is written:
// by an installation, a dry run and a build.
func TestRefusedByEachCommand(t *testing.T) {
	native := func(edit func(entries []chunked.Entry, at int) []chunked.Entry) string {
		ref, _ := nativeImage(t, atChunk(edit))
		return ref
	}
	policy := debianPolicy(t)
	policy["etc/selinux/default/contexts/files/file_contexts.local"] = "/opt/(x system_u:object_r:usr_t:s0\n"
	for name, c := range map[string]struct{ ref, want string }{
		"missing object": {native(func(e []chunked.Entry, at int) []chunked.Entry { return slices.Delete(e, at-1, at+1) }), `entry "sysroot/ostree/repo/objects/.*the object is missing`},
		"changed object": {native(func(e []chunked.Entry, at int) []chunked.Entry {
			e[at].Content = []byte(strings.Repeat("x", int(e[at].Size)))
			return e
		}), `layer sha256:.*\.file": the object has the checksum`},
		"changed chunk": {damagedChunk(t), `layer sha256:`},
		"broken policy": {configured(t, policy), `file_contexts\.local, line 1: the regular expression`},
		"no key":        {configured(t, map[string]string{"usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = signed\n"}), `composefs\.enabled=signed: it has no key`},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "disk.qcow2")
			build := []string{"build", "--bootloader", "none", c.ref, out}
			for _, args := range [][]string{
				installArgs(c.ref, rawFile(t, tinySize)), installArgs(c.ref, rawFile(t, tinySize), "--dry-run"), build, append(build, "--dry-run"),
			} {
				refused(t, 5, args, c.want)
			}
			if names, err := os.ReadDir(filepath.Dir(out)); err != nil || len(names) > 0 {
				t.Errorf("the build left %v, %v", names, err)
			}
		})
	}
}
