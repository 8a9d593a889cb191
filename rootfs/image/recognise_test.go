package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An image that is given by another transport than its own is named, with the reference to write.
func TestWrongTransport(t *testing.T) {
	dir := t.TempDir()
	l := newTestLayout(t)
	ref := l.tag("latest", l.image(plainLayer(tarOf(t, file("usr/bin/x", "x"), file("etc/x", "x")))))
	at := map[string]string{TransportOCI: l.dir, TransportRootfs: filepath.Join(dir, "tree")}
	for _, transport := range []string{TransportOCIArchive, TransportDir, TransportDockerArchive} {
		at[transport] = filepath.Join(dir, transport)
		skopeo(t, ref.String(), transport+":"+at[transport])
	}
	must(t, errors.Join(os.MkdirAll(filepath.Join(at[TransportRootfs], "usr"), 0o755), os.Mkdir(filepath.Join(at[TransportRootfs], "etc"), 0o755)))
	for given := range at {
		for is, path := range at {
			img, err := Open(t.Context(), Ref{given, path}, accept(t))
			if err == nil {
				must(t, img.Close())
			}
			if given == is {
				must(t, err)
				continue
			}
			if says := "write " + is + ":" + path; !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), says) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: of a %s: image: %v", given, is, err)
			}
		}
	}
	for name, content := range map[string][]byte{
		"a tar of a directory tree; unpack it": tarOf(t, file("./usr/bin/x", "x")),
		"a disk image (qcow2)":                 []byte("QFI\xfb\x00\x00\x00\x03"),
	} {
		path := filepath.Join(dir, "file")
		must(t, os.WriteFile(path, content, 0o600))
		for _, transport := range []string{TransportOCIArchive, TransportDockerArchive} {
			if _, err := Open(t.Context(), Ref{transport, path}, accept(t)); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: of %s: %v", transport, name, err)
			}
		}
	}
	if got := Recognise(filepath.Join(dir, "none")); got.Text != "" {
		t.Errorf("nothing is recognised as %q", got.Text)
	}
}

// One other byte, wherever it is in a layer, is called damage of that layer.
func TestFlippedBytes(t *testing.T) {
	content := strings.Repeat("some content ", 3000)
	for _, layer := range []blobLayer{
		gzipLayer(t, tarOf(t, file("a", content), file("b", "b"))), zstdLayer(t, tarOf(t, file("a", content), file("b", "b"))),
		plainLayer(tarOf(t, file("a", content), file("b", "b"))),
	} {
		for at := 0; at < len(layer.blob); at += max(1, len(layer.blob)/40) {
			l := newTestLayout(t)
			ref := l.tag("latest", l.image(layer))
			damaged := append([]byte{}, layer.blob...)
			damaged[at] ^= 0x10
			must(t, os.WriteFile(filepath.Join(l.dir, "blobs/sha256", strings.TrimPrefix(digestOf(layer.blob), "sha256:")), damaged, 0o600))
			_, err := importRef(t, ref, ImportOptions{})
			wantFault(t, err, digestOf(layer.blob), "", "the source is damaged")
		}
	}
}
