package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packed makes an image of one gzip layer with a file in it, as an OCI layout.
func packed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	script := `set -e; umoci init --layout "$1"; umoci new --image "$1:x"; mkdir -p "$2/usr"; seq 20000 >"$2/usr/numbers"
		umoci insert --image "$1:x" "$2/usr" /usr; umoci gc --layout "$1"`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, t.TempDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func openOCI(t *testing.T, transport, name string) *Image {
	t.Helper()
	img, err := Open(t.Context(), Ref{Transport: transport, Name: name}, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// The bytes that OpenLayer yields, and those in the file that it names, must have its digest.
func TestOpenLayerServesTheBlob(t *testing.T) {
	dir := packed(t)
	archive := filepath.Join(t.TempDir(), "a.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for transport, name := range map[string]string{TransportOCI: dir, TransportOCIArchive: archive} {
		layer, err := openOCI(t, transport, name).OpenLayer(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer layer.Close()
		file, offset, ok := layer.File()
		if !ok {
			t.Fatalf("%s: the blob lies in a file, but File does not say so", transport)
		}
		for what, r := range map[string]io.Reader{"stream": layer, "file": io.NewSectionReader(file, offset, layer.Size)} {
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				t.Fatal(err)
			}
			if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != layer.Digest {
				t.Errorf("%s: the %s has the digest %s, want %s", transport, what, got, layer.Digest)
			}
		}
	}
}

func TestDirectoryHasNoLayerToOpen(t *testing.T) {
	if _, err := openOCI(t, TransportRootfs, t.TempDir()).OpenLayer(t.Context(), 0); err == nil {
		t.Error("no error")
	}
}

// A layout that has a layer's tar under its diff-id gives the same tree, and notices when that tar
// is not the one of the configuration.
func TestLayerUnderItsDiffID(t *testing.T) {
	dir := packed(t)
	img := openOCI(t, TransportOCI, dir)
	want := treeText(t, img)
	blob := func(digest string) string { return filepath.Join(dir, blobPath(digest)) }
	layer := img.Layers[0]
	plain, err := exec.Command("gzip", "-dc", blob(layer.Digest)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob(layer.DiffID), plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blob(layer.Digest)); err != nil {
		t.Fatal(err)
	}
	again := openOCI(t, TransportOCI, dir)
	if got := treeText(t, again); got != want || again.ManifestDigest != img.ManifestDigest {
		t.Errorf("got\n%s\nof %s, want\n%s\nof %s", got, again.ManifestDigest, want, img.ManifestDigest)
	}
	plain[len(plain)/2] ^= 1
	if err := os.WriteFile(blob(layer.DiffID), plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openOCI(t, TransportOCI, dir).Import(t.Context(), &memorySink{}, ImportOptions{}); err == nil {
		t.Error("a changed layer was taken")
	}
}

func TestArchiveOnABlockDevice(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "a.tar")
	if out, err := exec.Command("tar", "-C", packed(t), "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", archive).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	img, err := Open(t.Context(), Ref{Transport: TransportOCIArchive, Name: device}, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if text := treeText(t, img); !strings.Contains(text, "usr/numbers") {
		t.Errorf("got %s", text)
	}
}

// treeText lists the nodes of an import.
func treeText(t *testing.T, img *Image) string {
	t.Helper()
	tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tree.Walk(func(path string, n *Node) error {
		_, err := fmt.Fprintf(&b, "%s %o %d %s\n", path, n.Mode, n.Size, n.Content)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
