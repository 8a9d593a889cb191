package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// wantFault checks that an error is the source's, and names layer and entry.
func wantFault(t *testing.T, err error, layer, entry, says string) {
	t.Helper()
	var fault *SourceError
	if !errors.As(err, &fault) {
		t.Fatalf("not a SourceError: %v", err)
	}
	if fault.Layer != layer || fault.Entry != entry {
		t.Errorf("fault names layer %q and entry %q, expected %q and %q", fault.Layer, fault.Entry, layer, entry)
	}
	if !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), layer) {
		t.Errorf("message %q does not say %q of layer %s", err, says, layer)
	}
}

func device(kind byte, name string) item {
	return item{Header: tar.Header{Typeflag: kind, Name: name}}
}

// validList is an access control list of a user beside the owner.
func validList() string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][2]uint32{{7<<16 | 1, 1<<32 - 1}, {6<<16 | 2, 1000}, {5<<16 | 4, 1<<32 - 1}, {7<<16 | 16, 1<<32 - 1}, {5<<16 | 32, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, e[0]), e[1])
	}
	return string(b)
}

func TestHostileEntries(t *testing.T) {
	long := strings.Repeat("x", 256)
	deep := strings.Repeat("d/", 2050) + "f"
	twice := file("x", "").xattr("user.a", "1")
	twice.PAXRecords["LIBARCHIVE.xattr.user%2Ea"] = "MQ"
	twice.PAXRecords["LIBARCHIVE.xattr.user.%61"] = "MQ"
	delete(twice.PAXRecords, schilyXattr+"user.a")
	capability := "\x01\x00\x00\x01" + strings.Repeat("\x00", 8) // revision 1
	accessList := "\x02\x00\x00\x00" + strings.Repeat("\x00", 8)
	for name, c := range map[string]struct {
		items       []item
		entry, says string
	}{
		"dot dot":              {[]item{file("a/../../b", "")}, "a/../../b", `".."`},
		"dot dot directory":    {[]item{dir("..", 0o755)}, "..", `".."`},
		"dot dot in dropped":   {[]item{file("tmp/../x", "")}, "tmp/../x", `".."`},
		"not UTF-8":            {[]item{file("a\xff", "")}, "a\xff", "UTF-8"},
		"long component":       {[]item{file(long, "")}, long, "255"},
		"long path":            {[]item{file(deep, "")}, deep, "4095"},
		"character device":     {[]item{device(tar.TypeChar, "x")}, "x", "device"},
		"block device":         {[]item{device(tar.TypeBlock, "usr/x")}, "usr/x", "device"},
		"fifo":                 {[]item{device(tar.TypeFifo, "x")}, "x", "pipe"},
		"device as dev":        {[]item{device(tar.TypeChar, "dev")}, "dev", "device"},
		"unknown type":         {[]item{device('Z', "x")}, "x", "type"},
		"hard link nowhere":    {[]item{hardlink("x", "y")}, "x", "not in the layer"},
		"hard link out":        {[]item{hardlink("x", "../etc/passwd")}, "x", `".."`},
		"hard link to dir":     {[]item{dir("d", 0o755), hardlink("x", "d")}, "x", "directory"},
		"hard link to itself":  {[]item{hardlink("x", "x")}, "x", "circle"},
		"hard link circle":     {[]item{hardlink("x", "y"), hardlink("y", "z"), hardlink("z", "y")}, "x", "circle"},
		"hard link to dropped": {[]item{file("tmp/y", ""), hardlink("x", "tmp/y")}, "x", "not in the layer"},
		"hard link to root":    {[]item{hardlink("x", "/")}, "x", "root"},
		"through a symlink":    {[]item{symlink("l", "/etc"), file("l/x", "")}, "l/x", "not a directory"},
		"through a file":       {[]item{file("l", ""), file("l/x", "")}, "l/x", "not a directory"},
		"through a hard link":  {[]item{dir("d", 0o755), hardlink("l", "d"), file("l/x", "")}, "l/x", "not a directory"},
		"root as a file":       {[]item{symlink("./", "/etc")}, "./", "root"},
		"whiteout of itself":   {[]item{file("d/.wh..", "")}, "d/.wh..", "whiteout"},
		"whiteout of parent":   {[]item{file("d/.wh...", "")}, "d/.wh...", "whiteout"},
		"whiteout of nothing":  {[]item{file("d/.wh.", "")}, "d/.wh.", "whiteout"},
		"whiteout directory":   {[]item{dir(".wh.x", 0o755)}, ".wh.x", "whiteout"},
		"whiteout parent":      {[]item{file(".wh.x/y", "")}, ".wh.x/y", "whiteout"},
		"whiteout symlink":     {[]item{symlink(".wh.x", "y")}, ".wh.x", "whiteout"},
		"opaque directory":     {[]item{dir("d/.wh..wh..opq", 0o755)}, "d/.wh..wh..opq", "whiteout"},
		"empty link":           {[]item{symlink("l", "")}, "l", "target"},
		"long link":            {[]item{symlink("l", strings.Repeat("x", 4096))}, "l", "4095"},
		"owner out of range":   {[]item{file("x", "").owner(4294967295, 0)}, "x", "range"},
		"negative owner":       {[]item{{tar.Header{Typeflag: tar.TypeReg, Name: "x", Gid: -1, Format: tar.FormatGNU}, ""}}, "x", "range"},
		"long xattr":           {[]item{file("x", "").xattr("user."+long, "1")}, "x", "attribute"},
		"large xattr":          {[]item{file("x", "").xattr("user.x", strings.Repeat("v", 65537))}, "x", "attribute"},
		"xattr twice":          {[]item{twice}, "x", "twice"},
		"xattr of a link":      {[]item{symlink("x", "y").xattr("user.overlay.origin", "x")}, "x", "symbolic link"},
		"xattr of a namespace": {[]item{file("x", "").xattr("user.", "x")}, "x", "namespace"},
		"capability":           {[]item{file("x", "").xattr("security.capability", capability)}, "x", "capability"},
		"access control list":  {[]item{file("x", "").xattr("system.posix_acl_access", accessList)}, "x", "access control list"},
		"default list":         {[]item{file("x", "").xattr("system.posix_acl_default", validList())}, "x", "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			layer := gzipLayer(t, tarOf(t, append([]item{file("good", "content")}, c.items...)...))
			_, err := importRef(t, layoutOf(t, plainLayer(tarOf(t)), layer), ImportOptions{})
			wantFault(t, err, digestOf(layer.blob), c.entry, c.says)
		})
	}
}

func TestDamagedLayers(t *testing.T) {
	plain := tarOf(t, file("a", strings.Repeat("some content ", 50_000)), file("b", "b"))
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x10
		return b
	}
	gz, zs := gzipBytes(t, plain), zstdBytes(t, plain)
	good := digestOf(plain)
	twoEnds := append(bytes.Clone(plain), "trailing data"...)
	for name, c := range map[string]struct {
		layer blobLayer
		says  string
	}{
		"wrong diff-id":        {blobLayer{gz, digestOf([]byte("other")), v1.MediaTypeImageLayerGzip}, "diff-id"},
		"wrong diff-id, plain": {blobLayer{plain, digestOf([]byte("other")), v1.MediaTypeImageLayer}, "diff-id"},
		"data after the end":   {blobLayer{gzipBytes(t, twoEnds), good, v1.MediaTypeImageLayerGzip}, "diff-id"},
		"bit flip in gzip":     {blobLayer{flip(gz, len(gz)/2), good, v1.MediaTypeImageLayerGzip}, ""},
		"bit flip in zstd":     {blobLayer{flip(zs, len(zs)-6), good, v1.MediaTypeImageLayerZstd}, ""},
		"gzip cut off":         {blobLayer{gz[:len(gz)-20], good, v1.MediaTypeImageLayerGzip}, "unexpected EOF"},
		"gzip without trailer": {blobLayer{gz[:len(gz)-8], good, v1.MediaTypeImageLayerGzip}, "unexpected EOF"},
		"zstd cut off":         {blobLayer{zs[:len(zs)-8], good, v1.MediaTypeImageLayerZstd}, "unexpected EOF"},
		"garbage after gzip":   {blobLayer{append(bytes.Clone(gz), "xyz"...), good, v1.MediaTypeImageLayerGzip}, "gzip"},
		"tar cut off":          {blobLayer{plain[:5000], digestOf(plain[:5000]), v1.MediaTypeImageLayer}, "unexpected EOF"},
		"no tar":               {blobLayer{bytes.Repeat([]byte("x"), 2000), digestOf(bytes.Repeat([]byte("x"), 2000)), v1.MediaTypeImageLayer}, "tar"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := importRef(t, layoutOf(t, c.layer), ImportOptions{})
			wantFault(t, err, digestOf(c.layer.blob), "", c.says)
		})
	}
}

// TestDamagedBlobs damages blobs of the layout after the manifest was written.
func TestDamagedBlobs(t *testing.T) {
	plain := tarOf(t, file("a", strings.Repeat("some content ", 50_000)), file("b", "b"))
	for _, layer := range []blobLayer{plainLayer(plain), gzipLayer(t, plain)} {
		for name, c := range map[string]struct {
			damage func(b []byte) []byte
			says   string
		}{
			"short":   {func(b []byte) []byte { return b[:len(b)-1] }, "truncated"},
			"long":    {func(b []byte) []byte { return append(b, 0) }, "bytes, its manifest says"},
			"missing": {nil, "is missing"},
			"padding": {func(b []byte) []byte { b[len(b)-1]++; return b }, ""},
		} {
			t.Run(name, func(t *testing.T) {
				l := newTestLayout(t)
				ref := l.tag("x", l.image(layer))
				path := l.blobFile(digest.Digest(digestOf(layer.blob)))
				if c.damage == nil {
					must(t, os.Remove(path))
				} else {
					must(t, os.WriteFile(path, c.damage(bytes.Clone(layer.blob)), 0o644))
				}
				_, err := importRef(t, ref, ImportOptions{})
				wantFault(t, err, digestOf(layer.blob), "", c.says)
			})
		}
	}
}

// TestBlobThatChangesAfterOpen: Import does not trust the findings of Open.
func TestBlobThatChangesAfterOpen(t *testing.T) {
	for name, layer := range map[string]blobLayer{
		"gzip": gzipLayer(t, tarOf(t, file("a", strings.Repeat("x", 100_000)))), "plain": plainLayer(tarOf(t, file("a", strings.Repeat("x", 100_000)))),
	} {
		for _, by := range []int64{-1, 1} {
			l := newTestLayout(t)
			img, err := Open(t.Context(), l.tag("x", l.image(layer)), accept(t))
			must(t, err)
			must(t, os.Truncate(l.blobFile(digest.Digest(digestOf(layer.blob))), int64(len(layer.blob))+by))
			_, err = img.Import(t.Context(), &memorySink{}, ImportOptions{})
			must(t, img.Close())
			says := map[int64]string{-1: "truncated", 1: "longer than its manifest"}[by]
			t.Run(fmt.Sprint(name, by), func(t *testing.T) { wantFault(t, err, digestOf(layer.blob), "", says) })
		}
	}
}

func TestDamagedManifests(t *testing.T) {
	layer := plainLayer(tarOf(t, file("a", "a")))
	wrong := func(name string, index []byte, says string) {
		t.Run(name, func(t *testing.T) {
			l := newTestLayout(t)
			must(t, os.WriteFile(filepath.Join(l.dir, "index.json"), index, 0o644))
			_, err := Open(t.Context(), Ref{TransportOCI, l.dir}, accept(t))
			wantFault(t, err, "", "", says)
		})
	}
	wrong("no JSON", []byte("{"), "parsing the index")
	wrong("no image", []byte("{}"), "lists no image")
	wrong("digest that is a path", []byte(`{"manifests":[{"digest":"sha256:../../../../etc/passwd","size":1}]}`), "digest")
	wrong("other hash", []byte(`{"manifests":[{"digest":"sha512:`+strings.Repeat("0", 128)+`","size":1}]}`), "sha256")
	wrong("huge index", bytes.Repeat([]byte(" "), maxJSON+1), "more than")

	altered := func(name, says string, change func(m *v1.Manifest)) {
		t.Run(name, func(t *testing.T) {
			l := newTestLayout(t)
			good := l.image(layer)
			var m v1.Manifest
			body, err := os.ReadFile(l.blobFile(good.Digest))
			must(t, err)
			must(t, json.Unmarshal(body, &m))
			change(&m)
			_, err = Open(t.Context(), l.tag("x", l.json(v1.MediaTypeImageManifest, m)), accept(t))
			if !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, expected %q", err, says)
			}
		})
	}
	altered("too many layers", "more than 1000", func(m *v1.Manifest) {
		for len(m.Layers) <= maxLayers {
			m.Layers = append(m.Layers, m.Layers[0])
		}
	})
	altered("more layers than diff-ids", "1 diff-ids", func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) })
	altered("no configuration", "no configuration", func(m *v1.Manifest) { m.Config = v1.Descriptor{} })
	altered("configuration that is a layer", "artifact", func(m *v1.Manifest) { m.Config = m.Layers[0] })
	altered("configuration of another size", "its descriptor says", func(m *v1.Manifest) { m.Config.Size++ })
	altered("missing configuration", "is missing", func(m *v1.Manifest) { m.Config.Digest = digest.FromString("other") })
	altered("encrypted layer", "encrypted", func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" })
	altered("no layer", "not that of a file system", func(m *v1.Manifest) { m.Layers[0].MediaType = "application/vnd.oci.empty.v1+json" })
	altered("negative size", "size of -5", func(m *v1.Manifest) { m.Layers[0].Size = -5 })
	altered("absurd size", "its manifest says 9223372036854775807", func(m *v1.Manifest) { m.Layers[0].Size = 1<<63 - 1 })

	l := newTestLayout(t)
	d := l.image(layer)
	must(t, os.WriteFile(l.blobFile(d.Digest), bytes.Repeat([]byte("x"), int(d.Size)), 0o644))
	_, err := Open(t.Context(), l.tag("x", d), accept(t))
	wantFault(t, err, "", "", "SHA-256")
}

func TestDamagedArchives(t *testing.T) {
	ref := layoutOf(t, gzipLayer(t, tarOf(t, file("a", strings.Repeat("content", 10_000)), file("b", "b"))))
	path := filepath.Join(t.TempDir(), "a.tar")
	skopeo(t, ref.String(), "oci-archive:"+path)
	whole, err := os.ReadFile(path)
	must(t, err)
	if _, err := importRef(t, Ref{TransportOCIArchive, path}, ImportOptions{}); err != nil {
		t.Fatalf("the whole archive: %v", err)
	}
	for size := 0; size < len(whole); size += 1 + len(whole)/41 {
		must(t, os.WriteFile(path, whole[:size], 0o644))
		if _, err := importRef(t, Ref{TransportOCIArchive, path}, ImportOptions{}); !errors.As(err, new(*SourceError)) {
			t.Errorf("cut at %d of %d bytes: %v", size, len(whole), err)
		}
	}
	must(t, os.WriteFile(path, gzipBytes(t, whole), 0o644))
	if _, err := importRef(t, Ref{TransportOCIArchive, path}, ImportOptions{}); err == nil || !strings.Contains(err.Error(), "gunzip") {
		t.Errorf("compressed archive: %v", err)
	}
	for _, missing := range []Ref{{TransportOCIArchive, path + "x"}, {TransportOCI, path + "x"}, {TransportRootfs, path}, {TransportDir, path + "x"}, {TransportDockerArchive, path + "x"}} {
		if _, err := Open(t.Context(), missing, accept(t)); !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

func TestLimits(t *testing.T) {
	bomb := gzipLayer(t, tarOf(t, file("zeros", string(make([]byte, 8<<20)))))
	_, err := importRef(t, layoutOf(t, bomb), ImportOptions{MaxLayerSize: 1 << 20})
	wantFault(t, err, digestOf(bomb.blob), "zeros", "limit")
	// Not within a file: after the tar's end.
	tail := gzipLayer(t, append(tarOf(t), make([]byte, 8<<20)...))
	_, err = importRef(t, layoutOf(t, tail), ImportOptions{MaxLayerSize: 1 << 20})
	wantFault(t, err, digestOf(tail.blob), "", "limit")
	large := plainLayer(tarOf(t, file("x", string(make([]byte, 1<<20)))))
	_, err = importRef(t, layoutOf(t, large), ImportOptions{MaxLayerSize: 1<<20 + 600})
	wantFault(t, err, digestOf(large.blob), "", "limit")

	sparse := plainLayer(sparseTar(1 << 50))
	_, err = importRef(t, layoutOf(t, sparse), ImportOptions{})
	wantFault(t, err, digestOf(sparse.blob), "sparse", "limit")

	many := plainLayer(tarOf(t, file("a", ""), file("b", ""), file("c", "")))
	_, err = importRef(t, layoutOf(t, many), ImportOptions{MaxEntries: 2})
	wantFault(t, err, digestOf(many.blob), "c", "entries")
	must(t, func() error { _, err := importRef(t, layoutOf(t, many), ImportOptions{MaxEntries: 3}); return err }())
}

// sparseTar is a tar with one sparse file of the given size, all hole, in GNU's old format, which
// archive/tar does not write.
func sparseTar(size int64) []byte {
	h := make([]byte, 512)
	copy(h, "sparse")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	// One entry of the sparse map: offset = the size, no bytes; then the real size, in base 256.
	base256 := func(b []byte, v int64) {
		for i := len(b) - 1; i >= 0; i-- {
			b[i], v = byte(v), v>>8
		}
		b[0] |= 0x80
	}
	base256(h[386:398], size)
	copy(h[398:], "00000000000\x00")
	base256(h[483:495], size)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, make([]byte, 1024)...)
}

func TestSparseFile(t *testing.T) {
	const size = 3 << 20
	tree, err := importRef(t, layoutOf(t, plainLayer(sparseTar(size))), ImportOptions{})
	must(t, err)
	full, err := importLayers(t, []item{file("sparse", string(make([]byte, size)))})
	must(t, err)
	sameLines(t, "sparse file", describe(tree.Root), describe(full.Root))
}

// The formats in which GNU tar writes sparse files, with data between the holes and a file behind.
func TestSparseFilesOfTar(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "a"))
	must(t, err)
	for _, at := range []int64{0, 1 << 20, 3<<20 + 5} {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, errors.Join(f.Truncate(4<<20), f.Close(), os.WriteFile(filepath.Join(dir, "b"), []byte("behind"), 0o644)))
	content, err := os.ReadFile(filepath.Join(dir, "a"))
	must(t, err)
	pack := func(args ...string) []byte {
		return []byte(run(t, append([]string{"tar", "-C", dir, "--owner=0", "--group=0", "--mode=0644", "-c"}, append(args, "a", "b")...)...))
	}
	want := mustImport(t, layoutOf(t, plainLayer(tarOf(t, file("a", string(content)), file("b", "behind")))))
	for _, args := range [][]string{
		{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"},
	} {
		packed := pack(append(args, "--sparse")...)
		if len(packed) > 1<<20 {
			t.Fatalf("%v: %d bytes: not sparse", args, len(packed))
		}
		for _, layer := range []blobLayer{plainLayer(packed), gzipLayer(t, packed)} {
			tree := mustImport(t, layoutOf(t, layer))
			sameLines(t, strings.Join(args, " "), describe(tree.Root), describe(want.Root))
		}
	}
}

func TestHostileDirectory(t *testing.T) {
	root := t.TempDir()
	run(t, "mkfifo", filepath.Join(root, "pipe"))
	_, err := importRef(t, Ref{TransportRootfs, root}, ImportOptions{})
	wantFault(t, err, "", "pipe", "neither a file")
	must(t, os.Rename(filepath.Join(root, "pipe"), filepath.Join(root, "a\xff")))
	_, err = importRef(t, Ref{TransportRootfs, root}, ImportOptions{})
	wantFault(t, err, "", "a\xff", "")
	must(t, os.Remove(filepath.Join(root, "a\xff")))
	must(t, os.WriteFile(filepath.Join(root, ".wh.x"), nil, 0o644))
	_, err = importRef(t, Ref{TransportRootfs, root}, ImportOptions{})
	wantFault(t, err, "", ".wh.x", "whiteout")
}

// FuzzLayer: no layer, however odd, makes an import panic, hang or escape.
func FuzzLayer(f *testing.F) {
	for _, l := range append(richLayers(f), repeats(f)) {
		plain := l.blob
		if r, err := gunzip(l.blob); err == nil {
			plain = r
		}
		if len(plain) < 64<<10 { // minimizing a large input takes minutes
			f.Add(plain)
		}
	}
	f.Add(sparseTar(1 << 12))
	f.Fuzz(func(t *testing.T, plain []byte) {
		var entries atomic.Int64
		entries.Store(10_000)
		r := tarReader{tree: newBuilder(newBudget(4 << 20)), out: markingStorer{}, entries: &entries, bytes: 4 << 20}
		root, err := r.read(bytes.NewReader(plain))
		if err != nil {
			return
		}
		tree, err := assemble(Ref{}, []*Node{root, root}, r.tree.dropped, Ignored{})
		if err != nil {
			return
		}
		tree.Walk(func(path string, n *Node) error {
			base := path[strings.LastIndexByte(path, '/')+1:]
			if base == ".." || base == "." || strings.HasPrefix(base, whiteoutPrefix) || isDropped(strings.Split(path, "/")) {
				t.Errorf("path %q in the merged tree", path)
			}
			if n.IsDir() != (n.Children != nil) || !n.IsDir() && n.Content == (ContentID{}) {
				t.Errorf("%q: %+v", path, n)
			}
			return nil
		})
	})
}

// markingStorer reads contents, as the pool does, and marks their nodes.
type markingStorer struct{}

func (markingStorer) store(node *Node, path string, content io.Reader) error {
	node.Content = ContentID{1}
	_, err := io.CopyN(io.Discard, content, node.Size)
	return err
}
