package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
)

// scanRef opens and scans an image.
func scanRef(t testing.TB, ref Ref, files ...string) (*Inventory, error) {
	t.Helper()
	return scanWith(t, ref, ScanOptions{Files: files})
}

func scanWith(t testing.TB, ref Ref, o ScanOptions) (*Inventory, error) {
	t.Helper()
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	defer func() { must(t, img.Close()) }()
	return img.Scan(t.Context(), o)
}

func mustScan(t testing.TB, ref Ref, files ...string) *Inventory {
	t.Helper()
	inv, err := scanRef(t, ref, files...)
	must(t, err)
	return inv
}

// withoutContent drops the content's name from the lines of describe.
func withoutContent(root *Node) []string {
	lines := describe(root)
	for i, l := range lines {
		if strings.Contains(l, `" `) {
			lines[i] = l[:strings.LastIndexByte(l, ' ')]
		}
	}
	return lines
}

// scanLayers are two layers with everything that a scan must distinguish.
func scanLayers(t testing.TB) [][]byte {
	lower := tarOf(t,
		dir("usr", 0o755), dir("etc", 0o755),
		file("usr/lib/conf.d/10.toml", "lower ten"),
		file("usr/lib/conf.d/20.toml", "twenty"),
		file("usr/lib/conf.d/30.toml", "thirty"),
		file("usr/share/elsewhere.toml", "by a symbolic link"),
		file("usr/share/hard", "by a hard link!"),
		hardlink("usr/lib/conf.d/40.toml", "usr/share/hard"),
		file("usr/share/twin", "by a hard link!"),
		file("usr/lib/conf.d/sub/no.toml", "below a directory that was not asked for"),
		symlink("usr/lib/conf.d/90.toml", "/dev/null"),
		file("etc/only", "from etc"),
		file("etc/hostname", ""),
		file("usr/bin/large", strings.Repeat("large", 200_000)),
	)
	upper := tarOf(t,
		file("usr/lib/conf.d/10.toml", "upper ten"),
		symlink("usr/lib/conf.d/50.toml", "../../share/elsewhere.toml"),
		symlink("usr/lib/linked.d", "conf.d"),
		file("usr/lib/conf.d/.wh.30.toml", ""),
		file("usr/share/copy", "twenty"),
		file("usr/share/mode", "twenty").mode(0o600),
	)
	return [][]byte{lower, upper}
}

func eachCompression(t *testing.T, plain [][]byte, test func(*testing.T, Ref)) {
	for name, pack := range map[string]func([]byte) blobLayer{
		"plain": plainLayer,
		"gzip":  func(b []byte) blobLayer { return gzipLayer(t, b) },
		"zstd":  func(b []byte) blobLayer { return zstdLayer(t, b) },
	} {
		t.Run(name, func(t *testing.T) {
			var layers []blobLayer
			for _, p := range plain {
				layers = append(layers, pack(p))
			}
			test(t, layoutOf(t, layers...))
		})
	}
}

// A scan must give the tree that an import gives, and the wanted contents as the merged tree has
// them, however they are reached.
func TestScan(t *testing.T) {
	want := map[string]string{
		"usr/lib/conf.d/10.toml": "upper ten", "usr/lib/conf.d/20.toml": "twenty",
		"usr/lib/conf.d/40.toml": "by a hard link!", "usr/lib/conf.d/50.toml": "by a symbolic link",
		"usr/lib/linked.d/20.toml": "twenty", "etc/only": "from etc", "usr/etc/only": "from etc", "usr/etc/hostname": "",
	}
	eachCompression(t, scanLayers(t), func(t *testing.T, ref Ref) {
		inv := mustScan(t, ref, "usr/lib/linked.d", "usr/etc/only", "usr/lib/none")
		tree := mustImport(t, ref)
		sameLines(t, "merged tree", withoutContent(inv.Tree.Root), withoutContent(tree.Root))
		for i := range tree.Layers {
			sameLines(t, "layer", withoutContent(inv.Tree.Layers[i]), withoutContent(tree.Layers[i]))
		}
		for name, text := range want {
			if name == "usr/etc/hostname" {
				continue // an empty stub, which the merge takes out
			}
			if got, err := inv.FS().ReadFile(name); err != nil || string(got) != text {
				t.Errorf("%s: %q, %v, want %q", name, got, err, text)
			}
		}
		for _, name := range []string{"usr/bin/large", "usr/lib/conf.d/sub/no.toml"} {
			if _, err := inv.FS().ReadFile(name); !errors.Is(err, ErrNotKept) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"usr/lib/conf.d/30.toml", "usr/lib/conf.d/90.toml", "etc/hostname"} {
			if _, err := inv.FS().ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// distinctSink counts distinct objects.
type distinctSink struct {
	memorySink
	lock    sync.Mutex
	seen    map[ContentID]bool
	blocks  int64
	objects int64
}

func (s *distinctSink) Store(ctx context.Context, m Meta, target string, size int64, content io.Reader) (ContentID, error) {
	id, err := s.memorySink.Store(ctx, m, target, size, content)
	s.lock.Lock()
	defer s.lock.Unlock()
	if !s.seen[id] {
		s.seen[id] = true
		s.objects++
		s.blocks += (size + 4095) &^ 4095
	}
	return id, err
}

// storedBy imports an image and returns the count and size of its objects.
func storedBy(t testing.TB, ref Ref) *distinctSink {
	t.Helper()
	sink := &distinctSink{seen: map[ContentID]bool{}}
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	defer func() { must(t, img.Close()) }()
	_, err = img.Import(t.Context(), sink, ImportOptions{})
	must(t, err)
	return sink
}

// An exact scan must predict the objects that the import then stores; any other may only say more,
// and says that it may.
func TestScanCountsWhatIsStored(t *testing.T) {
	eachCompression(t, scanLayers(t), func(t *testing.T, ref Ref) {
		sink := storedBy(t, ref)
		inv, err := scanWith(t, ref, ScanOptions{Exact: true})
		must(t, err)
		if inv.Bound || inv.Objects != sink.objects || inv.Stored != sink.blocks {
			t.Errorf("%d objects of %d bytes (bound: %v), stored were %d of %d", inv.Objects, inv.Stored, inv.Bound, sink.objects, sink.blocks)
		}
		inv = mustScan(t, ref)
		plain := strings.HasSuffix(t.Name(), "plain")
		// Of those contents three are there twice; compressed ones are always read.
		if more := inv.Objects - sink.objects; inv.Bound != plain || plain && more != 3 || !plain && more != 0 {
			t.Errorf("%d objects of %d bytes (bound: %v), stored were %d of %d", inv.Objects, inv.Stored, inv.Bound, sink.objects, sink.blocks)
		}
		if inv.Stored < sink.blocks {
			t.Errorf("%d bytes, stored were %d", inv.Stored, sink.blocks)
		}
	})
}

// countingReader counts the bytes that are read of a blob.
type countingReader struct {
	io.ReadSeekCloser
	bytes *int
}

func (r countingReader) Read(b []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(b)
	*r.bytes += n
	return n, err
}

type countingBlobs struct {
	blobSource
	bytes int
}

func (c *countingBlobs) open(ctx context.Context, b servedBlob) (io.ReadCloser, error) {
	r, err := c.blobSource.open(ctx, b)
	if err != nil {
		return nil, err
	}
	return countingReader{r.(io.ReadSeekCloser), &c.bytes}, nil
}

// Of a layer that lies uncompressed a scan reads the headers and the wanted files.
func TestScanPassesOverContents(t *testing.T) {
	ref := layoutOf(t, plainLayer(tarOf(t,
		file("usr/first", text(5_000_000)), file("usr/wanted", text(100_000)), file("usr/small", "small"), file("usr/last", text(5_000_000)),
	)))
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	src := img.src.(*layeredSource)
	counting := &countingBlobs{blobSource: src.blobs}
	src.blobs = counting
	inv, err := img.Scan(t.Context(), ScanOptions{Files: []string{"usr/wanted"}})
	must(t, err)
	must(t, img.Close())
	if got, err := inv.FS().ReadFile("usr/wanted"); err != nil || string(got) != text(100_000) {
		t.Errorf("the wanted file: %d bytes, %v", len(got), err)
	}
	if most := 100_000 + 8*skimBuffer; counting.bytes > most {
		t.Errorf("%d bytes were read, not at most %d", counting.bytes, most)
	}
}

// A layer that ends within a content or has no end is found out by its headers alone.
func TestScanOfTruncatedPlainLayer(t *testing.T) {
	whole := tarOf(t, file("usr/a", text(300_000)))
	for _, n := range []int{100_000, 300_000} {
		_, err := scanRef(t, layoutOf(t, plainLayer(whole[:n])))
		var fault *SourceError
		if !errors.As(err, &fault) || fault.Layer == "" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestScanDirectory(t *testing.T) {
	root := t.TempDir()
	run(t, "sh", "-c", `cd "$0" && mkdir -p usr/lib/conf.d usr/bin etc/conf.d dev && echo a >usr/lib/conf.d/a && ln usr/lib/conf.d/a usr/bin/b &&
		echo c >etc/conf.d/c && ln -s ../../bin/b usr/lib/conf.d/d && head -c 9000 /dev/zero >usr/bin/e`, root)
	inv := mustScan(t, Ref{TransportRootfs, root}, "usr/lib/conf.d", "usr/etc/conf.d")
	for name, text := range map[string]string{"usr/lib/conf.d/a": "a\n", "usr/lib/conf.d/d": "a\n", "etc/conf.d/c": "c\n"} {
		if got, err := inv.FS().ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Files a, c and e, and the symbolic link; e takes three blocks.
	if inv.Objects != 4 || inv.Stored != 5*StoredBlock {
		t.Errorf("%d objects of %d bytes", inv.Objects, inv.Stored)
	}
}

func TestInventoryFS(t *testing.T) {
	fsys := mustScan(t, layoutOf(t, gzipLayer(t, tarOf(t,
		dir("usr/sub", 0o755), file("usr/sub/a", "some content").mode(0o4755), file("usr/b", ""), dir("usr/etc", 0o755),
		symlink("loop", "loop"), symlink("up", "../../../usr/sub/../b"), symlink("abs", "/usr/sub/a"), symlink("nowhere", "usr/none"),
	))), "usr/sub/a").FS()
	must(t, fstest.TestFS(mustScan(t, layoutOf(t, plainLayer(tarOf(t, file("usr/a", "x"), dir("usr/etc", 0o755), symlink("l", "usr/a")))), "usr/a").FS(), "usr/a", "l"))
	for name, want := range map[string]string{"up": "", "abs": "some content", "usr/sub/a": "some content"} {
		if got, err := fs.ReadFile(fsys, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := fs.Stat(fsys, "loop"); err == nil || !strings.Contains(err.Error(), "symbolic links") {
		t.Errorf("loop: %v", err)
	}
	if _, err := fs.Stat(fsys, "nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nowhere: %v", err)
	}
	if info, err := fs.Lstat(fsys, "nowhere"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("nowhere: %v, %v", info, err)
	}
	if to, err := fs.ReadLink(fsys, "abs"); err != nil || to != "/usr/sub/a" {
		t.Errorf("abs: %q, %v", to, err)
	}
	if info, err := fs.Stat(fsys, "usr/sub/a"); err != nil || info.Mode() != 0o755|fs.ModeSetuid {
		t.Errorf("usr/sub/a: %v, %v", info, err)
	}
}

// Damage is the source's fault, known before anything is stored.
func TestScanOfDamage(t *testing.T) {
	plain := tarOf(t, file("usr/a", text(300_000)))
	blob := gzipLayer(t, plain)
	bad := bytes.Clone(blob.blob)
	bad[len(bad)-6] ^= 1 // of the checksum of RFC 1952
	short := gzipLayer(t, plain[:100_000])
	for name, layer := range map[string]blobLayer{
		"checksum": {bad, blob.diffID, blob.mediaType}, "truncated": short,
		"no tar": gzipLayer(t, []byte(strings.Repeat("no tar", 300))),
	} {
		_, err := scanRef(t, layoutOf(t, layer))
		var fault *SourceError
		if !errors.As(err, &fault) || fault.Layer == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// altered is an image whose layer has one byte changed that decides nothing about its entries.
func altered(t testing.TB, layer blobLayer, at int) (Ref, string) {
	t.Helper()
	l := newTestLayout(t)
	ref := l.tag("latest", l.image(layer))
	body := bytes.Clone(layer.blob)
	body[at] ^= 1
	must(t, os.WriteFile(l.blobFile(digest.FromBytes(layer.blob)), body, 0o644))
	return ref, digestOf(body)
}

// The bytes of a blob must be those of its digest, also where the tar that they decompress to is
// the same. A scan finds that out of compressed layers, and of any other the import does.
func TestScanVerifiesBlobs(t *testing.T) {
	plain := tarOf(t, file("a", "text"))
	packed, unpacked := gzipLayer(t, plain), plainLayer(plain)
	const timeStamp, content = 4, 512 // of RFC 1952; of the first file of a tar
	badPacked, packedDigest := altered(t, packed, timeStamp)
	badPlain, plainDigest := altered(t, unpacked, content)
	mustScan(t, badPlain)
	for _, c := range []struct {
		layer  blobLayer
		digest string
		err    error
	}{
		{packed, packedDigest, second(scanRef(t, badPacked))},
		{packed, packedDigest, second(importRef(t, badPacked, ImportOptions{}))},
		{unpacked, plainDigest, second(scanWith(t, badPlain, ScanOptions{Exact: true}))},
		{unpacked, plainDigest, second(importRef(t, badPlain, ImportOptions{}))},
	} {
		var fault *SourceError
		if !errors.As(c.err, &fault) || fault.Layer != digestOf(c.layer.blob) || !strings.Contains(c.err.Error(), c.digest) {
			t.Errorf("%s: %v", c.layer.mediaType, c.err)
		}
	}
}

// A layer must decompress to the tar of the configuration, and a scan checks that.
func TestScanVerifiesDiffIDs(t *testing.T) {
	layer := gzipLayer(t, tarOf(t, file("a", "text")))
	right := layer.diffID
	layer.diffID = digestOf([]byte("something else"))
	_, err := scanRef(t, layoutOf(t, layer))
	var fault *SourceError
	if !errors.As(err, &fault) || fault.Layer != digestOf(layer.blob) || !strings.Contains(err.Error(), right) {
		t.Errorf("%v", err)
	}
}

// A layer that becomes another one after the scan, as whole and as long, is not imported.
func TestImportVerifiesWhatWasScanned(t *testing.T) {
	scanned, other := gzipLayer(t, tarOf(t, file("a", "text"))), gzipLayer(t, tarOf(t, file("a", "tent")))
	if len(scanned.blob) != len(other.blob) {
		t.Fatalf("%d and %d bytes", len(scanned.blob), len(other.blob))
	}
	l := newTestLayout(t)
	img, err := Open(t.Context(), l.tag("latest", l.image(scanned)), accept(t))
	must(t, err)
	defer img.Close()
	importing := func(blob []byte) error {
		_, err := img.Scan(t.Context(), ScanOptions{})
		must(t, err)
		must(t, os.WriteFile(l.blobFile(digest.FromBytes(scanned.blob)), blob, 0o644))
		_, err = img.Import(t.Context(), &memorySink{}, ImportOptions{})
		must(t, os.WriteFile(l.blobFile(digest.FromBytes(scanned.blob)), scanned.blob, 0o644))
		return err
	}
	must(t, importing(scanned.blob))
	var fault *SourceError
	if err := importing(other.blob); !errors.As(err, &fault) || !strings.Contains(err.Error(), digestOf(other.blob)) {
		t.Errorf("%v", err)
	}
	must(t, importing(scanned.blob))
}

// Of an uncompressed layer a scan reads the headers alone, and verifies nothing. When they were not
// those of the layer that is imported, its digest is right and the tree is not.
func TestImportKnowsOtherHeaders(t *testing.T) {
	right := plainLayer(tarOf(t, file("a", "text"), file("b", "more")))
	other := plainLayer(tarOf(t, file("a", "text").mode(0o4755), file("b", "more")))
	l := newTestLayout(t)
	ref := l.tag("latest", l.image(right))
	put := func(layer blobLayer) {
		must(t, os.WriteFile(l.blobFile(digest.FromBytes(right.blob)), layer.blob, 0o644))
	}
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	defer img.Close()
	put(other)
	_, err = img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	put(right)
	var fault *SourceError
	if _, err := img.Import(t.Context(), &memorySink{}, ImportOptions{}); !errors.As(err, &fault) || !errors.Is(err, errOtherHeaders) {
		t.Errorf("%v", err)
	}
	_, err = img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	_, err = img.Import(t.Context(), &memorySink{}, ImportOptions{})
	must(t, err)
}

// An import with other limits than the scan had keeps to its own.
func TestImportHasItsOwnLimits(t *testing.T) {
	img, err := Open(t.Context(), layoutOf(t, plainLayer(tarOf(t, file("a", "text"), file("b", "more")))), accept(t))
	must(t, err)
	defer img.Close()
	_, err = img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	if _, err := img.Import(t.Context(), &memorySink{}, ImportOptions{MaxEntries: 1}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestScanIsBounded(t *testing.T) {
	many := layoutOf(t, gzipLayer(t, tarOf(t, file("a", strings.Repeat("x", 100_000)), file("b", ""))))
	for name, o := range map[string]ImportOptions{"size": {MaxLayerSize: 50_000}, "entries": {MaxEntries: 1}} {
		img, err := Open(t.Context(), many, accept(t))
		must(t, err)
		if _, err := img.Scan(t.Context(), ScanOptions{ImportOptions: o}); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%s: %v", name, err)
		}
		must(t, img.Close())
	}
	root := t.TempDir()
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(root, string(rune('a'+i))), make([]byte, 1<<20), 0o644))
	}
	_, err := scanRef(t, Ref{TransportRootfs, root}, ".")
	if !errors.Is(err, errKeptTooMuch) {
		t.Errorf("kept without bound: %v", err)
	}
}

func TestScanIsCancelled(t *testing.T) {
	before := openFiles(t)
	for _, ref := range []Ref{layoutOf(t, busyImage(t)...), busyDir(t)} {
		ctx, cancel := context.WithCancelCause(t.Context())
		img, err := Open(ctx, ref, accept(t))
		must(t, err)
		stopped := errors.New("stopped")
		cancel(stopped)
		if _, err := img.Scan(ctx, ScanOptions{}); !errors.Is(err, stopped) {
			t.Errorf("%s: %v", ref, err)
		}
		must(t, img.Close())
	}
	settle(t, before)
}

func BenchmarkScanGzip(b *testing.B) {
	ref := layoutOf(b, gzipLayer(b, tarOf(b, file("text", text(64<<20)))))
	for b.Loop() {
		img, err := Open(b.Context(), ref, accept(b))
		must(b, err)
		b.SetBytes(img.SourceSize())
		_, err = img.Scan(b.Context(), ScanOptions{})
		must(b, err)
		must(b, img.Close())
	}
}
