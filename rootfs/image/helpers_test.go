package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// memorySink names content by a hash over all that a file is, and counts.
type memorySink struct {
	mu     sync.Mutex
	stored int
	bytes  int64
	fail   func(m Meta, target string, size int64) error
}

func (s *memorySink) Store(_ context.Context, m Meta, target string, size int64, content io.Reader) (ContentID, error) {
	if s.fail != nil {
		if err := s.fail(m, target, size); err != nil {
			return ContentID{}, err
		}
	}
	h := sha256.New()
	binary.Write(h, binary.BigEndian, []uint32{m.Mode, m.UID, m.GID})
	fmt.Fprintf(h, "%q", target)
	for _, x := range m.Xattrs {
		fmt.Fprintf(h, "%q=%q", x.Name, x.Value)
	}
	h.Write([]byte{0})
	if (content == nil) != (target != "") {
		return ContentID{}, fmt.Errorf("target %q with content %v", target, content)
	}
	var n int64
	if content != nil {
		var err error
		if n, err = io.Copy(h, content); err != nil {
			return ContentID{}, err
		}
	}
	if n != size {
		return ContentID{}, fmt.Errorf("%d bytes came, %d were announced", n, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored++
	s.bytes += n
	return ContentID(h.Sum(nil)), nil
}

// item is an entry of a test layer.
type item struct {
	tar.Header
	body string
}

func file(name, body string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func dir(name string, mode int64) item {
	return item{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func symlink(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func (i item) owner(uid, gid int) item { i.Uid, i.Gid = uid, gid; return i }
func (i item) mode(m int64) item       { i.Mode = m; return i }

func (i item) xattr(name, value string) item {
	records := map[string]string{schilyXattr + name: value}
	for k, v := range i.PAXRecords {
		records[k] = v
	}
	i.PAXRecords = records
	return i
}

// tarOf writes the items as a tar.
func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.body))
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, i.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gzipBytes(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func zstdBytes(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

// blobLayer is a layer as it is put into a test layout.
type blobLayer struct {
	blob      []byte
	diffID    string
	mediaType string
}

func plainLayer(plain []byte) blobLayer {
	return blobLayer{plain, digestOf(plain), v1.MediaTypeImageLayer}
}

func gzipLayer(t testing.TB, plain []byte) blobLayer {
	return blobLayer{gzipBytes(t, plain), digestOf(plain), v1.MediaTypeImageLayerGzip}
}

func zstdLayer(t testing.TB, plain []byte) blobLayer {
	return blobLayer{zstdBytes(t, plain), digestOf(plain), v1.MediaTypeImageLayerZstd}
}

// testLayout is an OCI layout in a temporary directory.
type testLayout struct {
	t      testing.TB
	dir    string
	labels map[string]string
}

func newTestLayout(t testing.TB) *testLayout {
	l := &testLayout{t: t, dir: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(l.dir, "blobs/sha256"), 0o755))
	must(t, os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return l
}

func (l *testLayout) blobFile(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs/sha256", d.Encoded())
}

func (l *testLayout) blob(mediaType string, body []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	must(l.t, os.WriteFile(l.blobFile(d.Digest), body, 0o644))
	return d
}

func (l *testLayout) json(mediaType string, v any) v1.Descriptor {
	body, err := json.Marshal(v)
	must(l.t, err)
	return l.blob(mediaType, body)
}

// image adds an image of these layers and returns its manifest's descriptor.
func (l *testLayout) image(layers ...blobLayer) v1.Descriptor {
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.Config.Labels = map[string]string{"containers.bootc": "1"}
	maps.Copy(config.Config.Labels, l.labels)
	config.RootFS.Type = "layers"
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(layer.diffID))
		m.Layers = append(m.Layers, l.blob(layer.mediaType, layer.blob))
	}
	m.Config = l.json(v1.MediaTypeImageConfig, config)
	return l.json(v1.MediaTypeImageManifest, m)
}

// tag writes index.json with one image.
func (l *testLayout) tag(name string, d v1.Descriptor) Ref {
	d.Annotations = map[string]string{v1.AnnotationRefName: name}
	l.index(d)
	return Ref{TransportOCI, l.dir + ":" + name}
}

func (l *testLayout) index(manifests ...v1.Descriptor) {
	body, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: manifests})
	must(l.t, err)
	must(l.t, os.WriteFile(filepath.Join(l.dir, "index.json"), body, 0o644))
}

// layoutOf makes a layout of one image and returns its reference.
func layoutOf(t testing.TB, layers ...blobLayer) Ref {
	l := newTestLayout(t)
	return l.tag("latest", l.image(layers...))
}

// accept is a policy file that takes everything, so that tests do not depend on the host's.
func accept(t testing.TB) OpenOptions {
	path := filepath.Join(t.TempDir(), "policy.json")
	must(t, os.WriteFile(path, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644))
	return OpenOptions{PolicyPath: path}
}

// importRef opens and imports an image: as it is, and another time after a scan, which must come to
// the same.
func importRef(t testing.TB, ref Ref, o ImportOptions) (*Tree, error) {
	t.Helper()
	img, err := Open(t.Context(), ref, accept(t))
	if err != nil {
		return nil, err
	}
	defer func() { must(t, img.Close()) }()
	tree, err := img.Import(t.Context(), &memorySink{}, o)
	if _, unscannable := img.Scan(t.Context(), ScanOptions{ImportOptions: o}); unscannable == nil {
		again, failed := img.Import(t.Context(), &memorySink{}, o)
		sameImport(t, again, failed, tree, err)
	} else if err == nil {
		t.Errorf("imported, but not scanned: %v", unscannable)
	}
	return tree, err
}

func sameImport(t testing.TB, got *Tree, gotErr error, want *Tree, wantErr error) {
	t.Helper()
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
		t.Errorf("after a scan: %v, without: %v", gotErr, wantErr)
	}
	if gotErr != nil || wantErr != nil {
		return
	}
	sameLines(t, "after a scan", describe(got.Root), describe(want.Root))
	if !maps.Equal(got.Dropped, want.Dropped) || len(got.Layers) != len(want.Layers) {
		t.Errorf("after a scan: %d layers, dropped %v; without: %d, %v", len(got.Layers), got.Dropped, len(want.Layers), want.Dropped)
		return
	}
	for i := range got.Layers {
		sameLines(t, fmt.Sprintf("layer %d after a scan", i), describe(got.Layers[i]), describe(want.Layers[i]))
	}
}

func mustImport(t testing.TB, ref Ref) *Tree {
	t.Helper()
	tree, err := importRef(t, ref, ImportOptions{})
	must(t, err)
	return tree
}

// run runs a program, which the test needs as its oracle.
func run(t testing.TB, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, stderr.String())
	}
	return string(out)
}

// describe lists a tree, one line for each path, with all that a node says.
func describe(root *Node) []string {
	var lines []string
	root.Walk(func(path string, n *Node) error {
		line := fmt.Sprintf("/%s %o %d:%d", path, n.Mode, n.UID, n.GID)
		for _, x := range n.Xattrs {
			line += fmt.Sprintf(" %s=%q", x.Name, x.Value)
		}
		if !n.IsDir() {
			line += fmt.Sprintf(" %d %q %s", n.Size, n.Target, n.Content)
		}
		lines = append(lines, line)
		return nil
	})
	return lines
}

// sameLines fails with the first differences of two lists.
func sameLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	has := map[string]bool{}
	for _, l := range want {
		has[l] = true
	}
	wrong := 0
	for _, l := range got {
		if !has[l] && wrong < 10 {
			t.Errorf("%s: unexpected %s", what, l)
			wrong++
		}
		delete(has, l)
	}
	for l := range has {
		if wrong++; wrong < 20 {
			t.Errorf("%s: missing %s", what, l)
		}
	}
}

func unzstd(t testing.TB, b []byte) []byte {
	r, err := zstd.NewReader(bytes.NewReader(b))
	must(t, err)
	defer r.Close()
	plain, err := io.ReadAll(r)
	must(t, err)
	return plain
}

func gunzip(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// writeManyEntries writes a tar of empty files, twenty to a directory.
func writeManyEntries(t testing.TB, path string, entries int) {
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	b := bufio.NewWriter(f)
	w := tar.NewWriter(b)
	for i := range entries {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/some/directory-%d/file-name-%d", i/20, i), Mode: 0o644}))
	}
	must(t, w.Close())
	must(t, b.Flush())
}
