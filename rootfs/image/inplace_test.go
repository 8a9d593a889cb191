package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cstorage "go.podman.io/storage"
)

// storedImage copies an image into a new containers-storage.
func storedImage(t *testing.T, driver string, source Ref) (ref Ref, root string) {
	t.Helper()
	work := t.TempDir()
	root = work + "/root"
	ref = Ref{TransportContainersStorage, "[" + driver + "@" + root + "+" + work + "/run]localhost/test:latest"}
	skopeo(t, source.String(), ref.String())
	return ref, root
}

func openStoredImage(t *testing.T, ref Ref) (*Image, *layeredSource, cstorage.Store) {
	t.Helper()
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	t.Cleanup(func() { must(t, img.Close()) })
	src := img.src.(*layeredSource)
	return img, src, src.blobs.(*storageBlobs).store
}

func readAndClose(t *testing.T, r io.ReadCloser) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	return b
}

// A layer read in place is byte by byte the tar that the store makes of it; and layers can be open
// at once, which those that the store makes cannot.
func TestPlacedLayers(t *testing.T) {
	before := openFiles(t)
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			ref, _ := storedImage(t, driver, layoutOf(t, richLayers(t)...))
			_, src, store := openStoredImage(t, ref)
			var placed []*placedLayer
			for _, s := range src.served {
				l, err := openPlaced(store, s.storeID)
				must(t, err)
				placed = append(placed, l)
			}
			for i, l := range placed {
				got := readAndClose(t, l)
				again, err := rebuilt(store, src.served[i].storeID)
				must(t, err)
				want := readAndClose(t, again)
				if !bytes.Equal(got, want) || digestOf(got) != src.served[i].digest {
					t.Errorf("layer %d: %d bytes, not the %d of the store", i, len(got), len(want))
				}
				if _, err := l.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
					t.Errorf("reading on after the end: %v", err)
				}
			}
		})
	}
	settle(t, before)
}

func TestPlacedLayerSeeks(t *testing.T) {
	ref, _ := storedImage(t, "vfs", layoutOf(t, plainLayer(tarOf(t, file("a", text(3000)), file("b", "second")))))
	_, src, store := openStoredImage(t, ref)
	l, err := openPlaced(store, src.served[0].storeID)
	must(t, err)
	defer l.Close()
	const head, first = 512, 3072 // a header; the first content in whole blocks
	if at, err := l.Seek(head+2990, io.SeekCurrent); at != head+2990 || err != nil {
		t.Fatalf("at %d, %v", at, err)
	}
	rest := make([]byte, first-2990+head+6)
	_, err = io.ReadFull(l, rest)
	must(t, err)
	if !bytes.Equal(rest[:first-2990], make([]byte, first-2990)) || !bytes.HasPrefix(rest[first-2990:], []byte("b\x00")) || !bytes.HasSuffix(rest, []byte("second")) {
		t.Errorf("after a seek: %q", rest)
	}
	for _, c := range []struct {
		offset int64
		whence int
	}{{-1, io.SeekCurrent}, {0, io.SeekStart}, {0, io.SeekEnd}} {
		if _, err := l.Seek(c.offset, c.whence); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, err := l.Seek(1<<40, io.SeekCurrent); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("beyond the end: %v", err)
	}
}

// A scan opens no file but those it was asked for. Files that were changed, cut or taken away
// behind the store's back is found out by the import.
func TestPlacedLayerIsVerified(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"changed": func(file string) error { return os.WriteFile(file, []byte(strings.Repeat("X", 9)), 0o644) },
		"cut":     func(file string) error { return os.Truncate(file, 3) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			ref, root := storedImage(t, "overlay", layoutOf(t, plainLayer(tarOf(t, file("usr/bad", "nine byte"), file("usr/wanted", "text")))))
			found, err := filepath.Glob(root + "/overlay/*/diff/usr/bad")
			if err != nil || len(found) != 1 {
				t.Fatalf("%v, %v", found, err)
			}
			must(t, damage(found[0]))
			inv := mustScan(t, ref, "usr/wanted")
			if got, err := inv.FS().ReadFile("usr/wanted"); err != nil || string(got) != "text" || !inv.Bound {
				t.Errorf("%q, %v, bound: %v", got, err, inv.Bound)
			}
			_, err = importRef(t, ref, ImportOptions{})
			var fault *SourceError
			if !errors.As(err, &fault) || fault.Layer == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

// Without the parts of the tar that the store kept, the store is asked, and the digest shows
// whether its tar is right.
func TestStoredLayerWithoutItsHeaders(t *testing.T) {
	ref, root := storedImage(t, "vfs", layoutOf(t, plainLayer(tarOf(t, file("usr/a", "text")))))
	found, err := filepath.Glob(root + "/vfs-layers/*.tar-split.gz")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	must(t, os.Remove(found[0]))
	_, src, store := openStoredImage(t, ref)
	r, err := openStored(store, src.served[0].storeID)
	must(t, err)
	if _, placed := r.(*placedLayer); placed {
		t.Error("read in place, without its headers")
	}
	must(t, r.Close())
	must(t, os.WriteFile(found[0], []byte("no gzip"), 0o600))
	if _, err := openStored(store, src.served[0].storeID); err == nil {
		t.Error("headers that are none were taken")
	}
}
