package image

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// A registry is asked for each layer once, by scan and import together; twice where there is no
// place to keep it. Nothing is left either way.
func TestRemoteBlobsAreFetchedOnce(t *testing.T) {
	layers := []blobLayer{
		gzipLayer(t, tarOf(t, file("usr/lib/conf.d/a", "one"), file("usr/large", text(700_000)), symlink("usr/lib/conf.d/b", "../../x"))),
		gzipLayer(t, tarOf(t, file("usr/x", "two"))),
	}
	source := layoutOf(t, layers...)
	want := mustImport(t, source)
	var fetched atomic.Int64
	digests := []string{digestOf(layers[0].blob), digestOf(layers[1].blob)}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, digests[0]) || strings.HasSuffix(r.URL.Path, digests[1])) {
			fetched.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	name := "docker://" + strings.TrimPrefix(server.URL, "http://") + "/test/image:latest"
	skopeo(t, "--dest-tls-verify=false", source.String(), name)
	ref, err := ParseRef(name)
	must(t, err)
	for _, c := range []struct {
		dir   string
		times int64
	}{{t.TempDir(), 2}, {filepath.Join(t.TempDir(), "none"), 6}} { // the link's target takes a second pass
		before := openFiles(t)
		fetched.Store(0)
		o := accept(t)
		o.InsecureTLS, o.TempDir = true, c.dir
		img, err := Open(t.Context(), ref, o)
		must(t, err)
		inv, err := img.Scan(t.Context(), ScanOptions{Files: []string{"usr/lib/conf.d"}})
		must(t, err)
		if got, err := inv.FS().ReadFile("usr/lib/conf.d/b"); err != nil || string(got) != "two" {
			t.Errorf("%q, %v", got, err)
		}
		tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{})
		must(t, err)
		sameLines(t, "tree", describe(tree.Root), describe(want.Root))
		if n := len(img.src.(*layeredSource).blobs.(*spool).files); n != 0 {
			t.Errorf("%d blobs are still kept", n)
		}
		must(t, img.Close())
		if fetched.Load() != c.times {
			t.Errorf("%s: %d fetches of two layers, want %d", c.dir, fetched.Load(), c.times)
		}
		settle(t, before)
	}
}

func TestSpoolIsGivenUpOnClose(t *testing.T) {
	before := openFiles(t)
	dir := t.TempDir()
	ref := layoutOf(t, gzipLayer(t, tarOf(t, file("a", text(300_000)))))
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	src := img.src.(*layeredSource)
	src.blobs = newSpool(src.blobs, dir)
	_, err = img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	kept := src.blobs.(*spool)
	if len(kept.files) != 1 {
		t.Errorf("%d blobs are kept", len(kept.files))
	}
	kept.fill(true)
	half, err := kept.blobs.open(t.Context(), src.served[0])
	must(t, err)
	reader := &spoolingReader{ReadCloser: half, spool: kept, digest: "other"}
	reader.file, err = unnamed(dir)
	must(t, err)
	_, err = io.ReadFull(reader, make([]byte, 1000))
	must(t, err)
	must(t, reader.Close()) // a blob that was not read to its end is not kept
	if kept.files["other"] != nil {
		t.Error("half a blob is kept")
	}
	must(t, img.Close())
	if left := run(t, "find", dir, "-type", "f"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	settle(t, before)
}
