package deploy

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/rootfs/image"
	"installer/rootfs/ostree"
	"installer/tests/chunked"
)

// contexts is the SELinux policy of the base commit. A layer over it has moreContexts, by which files
// of the commit get other labels.
const (
	contexts = `/.* system_u:object_r:default_t:s0
/usr(/.*)? system_u:object_r:usr_t:s0
/usr/bin(/.*)? -- system_u:object_r:bin_t:s0
/usr/lib/link -l system_u:object_r:link_t:s0
/usr/etc(/.*)? system_u:object_r:etc_t:s0
/usr/share/names(/.*)? <<none>>
`
	moreContexts = "/usr/share/kept(/.*)? system_u:object_r:local_t:s0\n/usr/bin/su -- system_u:object_r:su_t:s0\n"
	policyDir    = "usr/etc/selinux/test/contexts/files/"
)

// systemMaker makes the tree of a base commit, with everything that its objects can have.
type systemMaker struct {
	t    *testing.T
	root string
}

func (m systemMaker) at(name string) string { return filepath.Join(m.root, name) }

func (m systemMaker) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m systemMaker) label(name, kind string) {
	m.check(unix.Lsetxattr(m.at(name), "security.selinux", []byte("system_u:object_r:"+kind+":s0\x00"), 0))
}

func (m systemMaker) write(name, content string, mode os.FileMode) {
	m.check(os.MkdirAll(filepath.Dir(m.at(name)), 0o755))
	m.check(os.WriteFile(m.at(name), []byte(content), 0o600))
	m.check(os.Chmod(m.at(name), mode))
	m.label(name, "usr_t")
}

func (m systemMaker) attr(name, attr, value string) {
	m.check(unix.Setxattr(m.at(name), attr, []byte(value), 0))
}

// systemTree makes that tree, with a policy or without.
func systemTree(t *testing.T, policy bool) string {
	t.Helper()
	m := systemMaker{t, t.TempDir()}
	m.check(os.Chmod(m.root, 0o755))
	if policy {
		m.write("usr/etc/selinux/config", "SELINUX=permissive\nSELINUXTYPE=test\n", 0o644)
		m.write("usr/etc/selinux/test/policy/policy.33", "binary policy", 0o644)
		m.write(policyDir+"file_contexts", contexts, 0o644)
	}
	m.programs()
	for name, content := range map[string]string{
		"usr/share/names/ü €\nx": "odd", "usr/share/names/.wh.kept": "of the commit", "usr/share/gone/a": "a",
		"usr/share/single": "single", "usr/share/file-to-link": "file", "usr/share/dir-to-file/x": "x", "usr/share/kept/below": "below",
		"usr/etc/conf": "conf", "usr/etc/conf.d/empty": "",
	} {
		m.write(name, content, 0o644)
	}
	for i := range 500 {
		m.write(fmt.Sprintf("usr/share/large/a-rather-long-name-for-entry-%d", i), fmt.Sprint("entry ", i%300), 0o644)
	}
	for name, target := range map[string]string{"usr/lib/link": "../bin/su", "ostree": "sysroot/ostree", "usr/share/link-to-file": "single"} {
		m.check(os.Symlink(target, m.at(name)))
		m.label(name, "lib_t")
	}
	for _, name := range []string{"sysroot", "boot", "dev", "proc", "sys", "run", "tmp", "var", "usr/lib/tmpfiles.d"} {
		m.check(os.MkdirAll(m.at(name), 0o755))
	}
	m.check(os.Chmod(m.at("tmp"), 0o777|os.ModeSticky))
	m.check(os.Chmod(m.at("usr/share/kept"), 0o750))
	m.label("usr", "usr_t")
	m.label("usr/share/kept", "kept_t")
	return m.root
}

// programs makes files with set-id bits, capabilities, other attributes, owners and names.
func (m systemMaker) programs() {
	m.write("usr/lib/os-release", "ID=lab\n", 0o644)
	m.write("usr/lib/modules/6/vmlinuz", "kernel\n", 0o644)
	m.write("usr/lib/modules/6/initramfs.img", strings.Repeat("initramfs\n", 80_000), 0o600)
	m.write("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n", 0o644)
	m.write("usr/bin/su", "set-id program", 0o755|os.ModeSetuid)
	m.write("usr/bin/ping", "capable", 0o755)
	m.attr("usr/bin/ping", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	m.write("usr/bin/attributed", "attributed", 0o644)
	m.attr("usr/bin/attributed", "security.b", "2") // Debian 12's ostree does not sort a label before later names
	m.attr("usr/bin/attributed", "security.a", strings.Repeat("1", 300))
	m.write("usr/bin/owned", "owned", 0o640)
	m.check(os.Chown(m.at("usr/bin/owned"), 7, 8))
	m.check(os.Link(m.at("usr/bin/su"), m.at("usr/bin/su-again")))
}

// derivedLayers replace and delete what the base commit has, in all ways. Paths are as ostree-ext
// hands them to ostree.
func derivedLayers(policy bool) [][]entry {
	owned := func(e entry, uid, gid int) entry { e.Uid, e.Gid = uid, gid; return e }
	hard := func(name, target string) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
	}
	var contexts []entry
	if policy {
		contexts = []entry{fileEntry(policyDir+"file_contexts.local", moreContexts)}
	}
	return [][]entry{{
		dirEntry("usr/share/kept", 0o700), fileEntry("usr/share/kept/new", "new"),
		owned(fileEntry("usr/bin/owned", "replaced"), 5, 6),
		fileEntry("usr/share/.wh.gone", ""), fileEntry("usr/share/.wh.single", ""),
		owned(fileEntry("usr/share/made/on/the/way", "implied"), 11, 12),
		fileEntry("usr/etc/conf", "other conf"), fileEntry("usr/etc/conf.d/added", "added"),
		fileEntry("usr/bin/one", "one"), hard("usr/bin/two", "usr/bin/one"), hard("usr/bin/three", "usr/bin/one"),
	}, append(contexts,
		fileEntry("usr/share/large/.wh..wh..opq", ""), fileEntry("usr/share/large/only", "only"),
		linkEntry("usr/share/file-to-link", "kept"), fileEntry("usr/share/link-to-file", "a file now"),
		fileEntry("usr/share/dir-to-file", "a file now"),
		owned(dirEntry("usr/share/fresh", 0o711), 3, 4), fileEntry("usr/share/fresh/x", "x"),
		fileEntry("var/lib/state", "state"), fileEntry("opt/tool", "tool"),
	), {
		dirEntry("./", 0o700), fileEntry(".wh.boot", ""), owned(fileEntry("srv/www/x", "w"), 8, 8),
		dirEntry("usr/share/large", 0o700), fileEntry("usr/share/large/.wh..wh..opq", ""), dirEntry("usr/share/large/sub", 0o711), fileEntry("usr/share/large/sub/.wh.no", ""),
		fileEntry("usr/share/single", "back"), fileEntry("usr/share/kept/.wh.new", ""),
		fileEntry("usr/share/fresh/.wh..wh..opq", ""), fileEntry("usr/share/fresh/y", "y"),
		fileEntry("usr/share/.early", "removed by the whiteout after it"), fileEntry("usr/share/.wh..early", ""),
		fileEntry("usr/nowhere/.wh.nothing", ""),
		owned(dirEntry("usr/bin", 0o700), 1, 1), fileEntry("usr/bin/.wh.su-again", ""),
	}}
}

// nativeImage is an ostree-native image with the repository that it was made of.
type nativeImage struct {
	repo, base string // the repository and its commit
	source     string
	layers     []string
}

func makeNative(t *testing.T, o chunked.Options, policy bool, derived ...[]entry) nativeImage {
	t.Helper()
	n := nativeImage{repo: t.TempDir()}
	run(t, "ostree", "init", "--repo="+n.repo, "--mode=bare")
	n.base = strings.TrimSpace(run(t, "ostree", "commit", "--repo="+n.repo, "--branch=base", "--subject=a system", "--timestamp=2026-01-02T03:04:05Z",
		"--add-metadata-string=version=7", "--add-detached-metadata-string=signature=of the commit", "--tree=dir="+systemTree(t, policy)))
	base, err := chunked.Layers(n.repo, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	labels, err := chunked.Labels(base)
	if err != nil {
		t.Fatal(err)
	}
	n.layers = slices.Concat(base, writeTars(t, derived...))
	n.source = makeLayout(t, labels, n.layers)
	return n
}

// TestNativeEqualsOstree compares an image of a chunked commit and 3 layers over it with ostree's
// own checkout of the commit and the layers, committed with the policy that is in it.
func TestNativeEqualsOstree(t *testing.T) {
	for name, policy := range map[string]bool{"without a policy": false, "with a policy": true} {
		t.Run(name, func(t *testing.T) {
			n := makeNative(t, chunked.Options{Chunks: 32, Version: 1}, policy, derivedLayers(policy)...)
			x := newTarget(t)
			img, tree, commit := x.importedWith(t, n.source, followed, policy)
			ours, theirs := "--repo="+x.path+"/ostree/repo", "--repo="+n.repo

			merged := filepath.Join(t.TempDir(), "merged")
			run(t, "ostree", "checkout", theirs, n.base, merged)
			for i, layer := range n.layers[33:] {
				run(t, "ostree", "commit", theirs, fmt.Sprint("--branch=layer", i), "--no-bindings", "--tar-autocreate-parents", "--tree=tar="+layer)
				run(t, "ostree", "checkout", theirs, "--union", "--whiteouts", fmt.Sprint("layer", i), merged)
			}
			commitOf := func(branch, dir string) {
				args := []string{"commit", theirs, "--branch=" + branch, "--tree=dir=" + dir}
				if policy {
					args = append(args, "--selinux-policy="+merged)
				}
				run(t, "ostree", args...)
			}
			commitOf("merged", merged)
			sameListing(t, "the merged tree", listing(t, ours, commit.String()), listing(t, theirs, "merged"))
			for i := range n.layers[33:] {
				dir := filepath.Join(t.TempDir(), "layer")
				run(t, "ostree", "checkout", theirs, fmt.Sprint("layer", i), dir)
				commitOf("labelled", dir)
				sameListing(t, fmt.Sprint("layer ", i), listing(t, ours, blobRef(t, img, 33+i)), listing(t, theirs, "labelled"))
			}
			checkNative(t, x, n, img, tree, commit)
			run(t, "ostree", "fsck", ours)
		})
	}
}

func sameListing(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: only ours are\n%s\nonly ostree's are\n%s", what, difference(got, want), difference(want, got))
	}
}

// listing lists a commit with all attributes and checksums.
func listing(t *testing.T, repo, commit string) string {
	t.Helper()
	return run(t, "ostree", "ls", repo, "-R", "-C", "-X", commit)
}

func difference(got, want string) string {
	have := strings.Split(want, "\n")
	var lines []string
	for line := range strings.SplitSeq(got, "\n") {
		if !slices.Contains(have, line) && len(lines) < 20 {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func blobRef(t *testing.T, img *image.Image, layer int) string {
	t.Helper()
	ref, err := BlobRef(img.Layers[layer].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// checkNative checks the records that an updater reads back of the base commit and its layers.
func checkNative(t *testing.T, x *target, n nativeImage, img *image.Image, tree *image.Tree, merge ostree.Checksum) {
	t.Helper()
	repo := "--repo=" + x.path + "/ostree/repo"
	for i := range min(img.BaseLayers, 4) {
		got := strings.TrimSpace(run(t, "ostree", "rev-parse", repo, blobRef(t, img, i)))
		want := n.base
		if i > 0 {
			want = n.objectSet(t, tree.Layers[i])
		}
		if got != want {
			t.Errorf("base layer %d has the commit %s, want %s", i, got, want)
		}
	}
	if got := run(t, "ostree", "show", repo, merge.String()); !strings.Contains(got, "Parent:  "+n.base) {
		t.Errorf("the merge has another parent than %s:\n%s", n.base, got)
	}
	if got := run(t, "ostree", "show", repo, "--print-detached-metadata-key=signature", n.base); unquoteVariant(got) != "of the commit" {
		t.Errorf("the metadata beside the commit: %s", got)
	}
}

// objectSet has ostree commit a directory of the file objects of a layer under their checksums.
func (n nativeImage) objectSet(t *testing.T, layer *image.Node) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range layer.Children {
		if err := os.Link(filepath.Join(n.repo, "objects", name[:2], name[2:]+".file"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return strings.TrimSpace(run(t, "ostree", "commit", "--repo="+n.repo, "--orphan", "--no-bindings", "--timestamp=1970-01-01T00:00:00Z", "--tree=dir="+dir))
}

// TestNativeStreams imports a commit alone in both versions of the streams, in one layer and in
// several: the merged tree is the commit's.
func TestNativeStreams(t *testing.T) {
	for _, o := range []chunked.Options{{Chunks: 0, Version: 1}, {Chunks: 0, Version: 0}, {Chunks: 5, Version: 0}} {
		t.Run(fmt.Sprintf("version %d in %d chunks", o.Version, o.Chunks), func(t *testing.T) {
			n := makeNative(t, o, false)
			x := newTarget(t)
			img, tree, commit := x.imported(t, n.source, followed)
			checkNative(t, x, n, img, tree, commit)
			ours := "--repo=" + x.path + "/ostree/repo"
			sameListing(t, "the merged tree", listing(t, ours, commit.String()), listing(t, "--repo="+n.repo, n.base))
			run(t, "ostree", "fsck", ours)
		})
	}
}
