package deploy

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"installer/rootfs/image"
	"installer/rootfs/label"
	"installer/rootfs/ostree"
	"installer/tests/layout"
)

// testLedger counts open handles and fails the test if something is at its end.
type testLedger struct {
	mu   sync.Mutex
	open map[string]int
	seen int
}

func newLedger(t *testing.T) *testLedger {
	l := &testLedger{open: map[string]int{}}
	t.Cleanup(func() {
		if left := l.left(); len(left) > 0 {
			t.Errorf("still open: %q", left)
		}
	})
	return l
}

func (l *testLedger) Opened(kind, name string) func() {
	key := kind + " " + name
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[key]++
	l.seen++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open[key]--; l.open[key] == 0 {
			delete(l.open, key)
		}
	}
}

func (l *testLedger) left() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for name := range l.open {
		names = append(names, name)
	}
	return names
}

// entry is one entry of a layer; content is a link's target for symbolic and hard links.
type entry struct {
	tar.Header
	content string
}

func dirEntry(name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func fileEntry(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func linkEntry(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// baseLayer is a small system with everything that a deployment needs.
func baseLayer() []entry {
	entries := []entry{
		fileEntry("usr/lib/os-release", "NAME=Lab\nID=lab\nPRETTY_NAME=\"Lab OS \\\"7\\\"\"\n"),
		fileEntry("usr/lib/modules/6.1.0-9/vmlinuz", "kernel\n"),
		fileEntry("usr/lib/modules/6.1.0-9/initramfs.img", strings.Repeat("initramfs\n", 3000)),
		dirEntry("usr/lib/tmpfiles.d", 0o755),
		dirEntry("etc", 0o755), dirEntry("etc/sub", 0o2750),
		fileEntry("etc/passwd", "root:x:0:0::/root:/bin/sh\n"), fileEntry("etc/empty", ""), fileEntry("etc/.updated", "x"),
		linkEntry("etc/link", "sub/secret"),
		dirEntry("var/lib", 0o755), fileEntry("var/lib/state", "state\n"), dirEntry("var/tmp", 0o1777),
		linkEntry("ostree", "sysroot/ostree"), fileEntry("usr/bin/gone", "gone"),
	}
	secret := fileEntry("etc/sub/secret", "secret\n")
	secret.Mode, secret.Uid, secret.Gid = 0o4640, 7, 8
	secret.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept"}
	state := dirEntry("var", 0o711)
	state.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "of the image"}
	entries = append(entries, secret, state)
	for _, name := range []string{"sysroot", "boot", "dev", "proc", "sys", "run", "tmp"} {
		entries = append(entries, dirEntry(name, 0o755))
	}
	return entries
}

// upperLayer changes the base: a whiteout, an opaque directory, a replacement.
func upperLayer() []entry {
	return []entry{
		fileEntry("usr/bin/.wh.gone", ""), fileEntry("usr/bin/new", "new"),
		dirEntry("usr/share/many", 0o755), fileEntry("usr/share/many/.wh..wh..opq", ""), fileEntry("usr/share/many/one", "1"),
	}
}

// created is when the test image says that it was made.
func created() time.Time { return time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC) }

// makeImage makes an OCI layout of the layers and returns its reference.
func makeImage(t *testing.T, labels map[string]string, layers ...[]entry) string {
	t.Helper()
	return makeLayout(t, labels, writeTars(t, layers...))
}

// writeTars writes the layers as tars, and returns their names.
func writeTars(t *testing.T, layers ...[]entry) (names []string) {
	t.Helper()
	for i, entries := range layers {
		name := filepath.Join(t.TempDir(), fmt.Sprint(i))
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(f)
		for _, e := range entries {
			h := e.Header
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// makeLayout makes an OCI layout of tars and returns its reference.
func makeLayout(t *testing.T, labels map[string]string, tars []string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "oci")
	if err := layout.Write(dir, tars, layout.Options{Tag: "latest", Labels: labels, Created: created()}); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":latest"
}

// target is a physical root in a directory, with its repository.
type target struct {
	path   string
	root   *os.File
	repo   *ostree.Repo
	ledger *testLedger
}

func newTarget(t *testing.T) *target {
	t.Helper()
	x := &target{path: t.TempDir(), ledger: newLedger(t)}
	var err error
	if x.root, err = os.Open(x.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.root.Close()
		clearImmutable(t, x.path)
	})
	if err := InitSysroot(x.root); err != nil {
		t.Fatal(err)
	}
	config := ostree.Config{Bootloader: "none", ReadOnly: true}
	if x.repo, err = ostree.Create(x.root, config, x.ledger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.repo.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// clearImmutable makes deployments removable again.
func clearImmutable(t *testing.T, sysroot string) {
	t.Helper()
	found, err := filepath.Glob(sysroot + "/ostree/deploy/*/deploy/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if !strings.HasSuffix(name, ".origin") {
			run(t, "chattr", "-i", name)
		}
	}
}

// imported imports the image into the target and writes its commits; followed is the reference that
// the host follows.
func (x *target) imported(t *testing.T, source, followed string) (*image.Image, *image.Tree, ostree.Checksum) {
	t.Helper()
	return x.importedWith(t, source, followed, false)
}

// importedWith is imported, with labels by the image's own policy.
func (x *target) importedWith(t *testing.T, source, followed string, policy bool) (*image.Image, *image.Tree, ostree.Checksum) {
	t.Helper()
	ref, err := image.ParseRef(source)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Open(t.Context(), ref, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	o := image.ImportOptions{}
	if policy {
		inv, err := img.Scan(t.Context(), image.ScanOptions{Files: label.Patterns()})
		if err != nil {
			t.Fatal(err)
		}
		p, err := label.Load(inv.FS())
		if err != nil || p == nil {
			t.Fatalf("the image's policy: %+v, %v", p, err)
		}
		o.Label = p.Of
	}
	tree, err := img.Import(t.Context(), NewSink(x.repo), o)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := WriteImage(t.Context(), x.repo, img, tree, followed)
	if err != nil {
		t.Fatal(err)
	}
	return img, tree, commit
}

const followed = "docker://quay.io/lab/os:latest"

func options() Options {
	return Options{Kargs: []string{"root=UUID=1-2", "rw"}, Origin: OriginReference(followed, false), TargetImage: followed}
}

// deployed makes an image of the layers, imports it and deploys it.
func deployed(t *testing.T, layers ...[]entry) (*target, *Deployment) {
	t.Helper()
	x := newTarget(t)
	labels := map[string]string{"org.opencontainers.image.version": "2024.5"}
	_, _, commit := x.imported(t, makeImage(t, labels, layers...), followed)
	dep, err := Deploy(t.Context(), x.root, x.repo, commit, options(), x.ledger)
	if err != nil {
		t.Fatal(err)
	}
	return x, dep
}

func (x *target) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(x.path, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// run runs a program and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// inventory lists a tree as find sees it: kind, mode, owner, number of names, size or target, path.
func inventory(t *testing.T, root string) []string {
	t.Helper()
	out := run(t, "find", root, "-mindepth", "1",
		"(", "-type", "d", "-printf", "%y %m %U:%G - - /%P\n", ")", "-o", "-printf", "%y %m %U:%G %n %s%l /%P\n")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}
