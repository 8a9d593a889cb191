package tests

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"testing"

	"installer/tests/layout"
)

// zeros is content without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// plainTwins is a small image with uncompressed layers and one large content under two names. It
// returns its directory and the digest of its top layer.
func plainTwins(t *testing.T, size int64) (dir, top string) {
	t.Helper()
	src, _ := splitRef(Variant(t, TinyImage(t), func(w *tar.Writer) error {
		for _, name := range []string{"usr/share/a", "usr/share/b"} {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
				return err
			}
			if _, err := io.CopyN(w, zeros{}, size); err != nil {
				return err
			}
		}
		return nil
	}))
	dir = filepath.Join(t.TempDir(), "plain")
	must(t, layout.Decompress(src, dir))
	_, manifest, _, err := layout.Read(dir)
	must(t, err)
	return dir, manifest.Layers[len(manifest.Layers)-1].Digest.Encoded()
}

// A disk that is too small only if equal contents count twice is not: where contents were passed
// over, they are looked at before it is refused.
func TestEqualContentsNeedRoomOnce(t *testing.T) {
	const mib = 1 << 20
	const others = 516 * mib // partitions beside the root, and the tables
	dir, _ := plainTwins(t, 256*mib)
	ref := "oci:" + dir + ":latest"
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, 4<<30)
	need := readPlan(t, installArgs(ref, raw, "--dry-run", "--filesystem", "ext4")...).Plan.RootNeed
	must(t, os.Truncate(raw, (need+mib-1)/mib*mib+others))
	Run(t, installArgs(ref, raw, "--filesystem", "ext4")...).Must(t)
	must(t, os.Truncate(raw, (need+mib-1)/mib*mib+others-8*mib))
	refused(t, 4, installArgs(ref, raw, "--filesystem", "ext4", "--wipe"), `too small`)
}

// The digest of a layer that lies uncompressed is known when the layer was read, which is after the
// first write. It ends the installation all the same.
func TestPlainLayerOfWrongDigest(t *testing.T) {
	const content = 512 // of the layer's first file
	dir, top := plainTwins(t, 1<<20)
	f, err := os.OpenFile(filepath.Join(dir, "blobs/sha256", top), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{1}, content)
	must(t, err)
	must(t, f.Close())
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	refused(t, 5, installArgs("oci:"+dir+":latest", raw), `layer sha256:`+top+`: the SHA-256 of the blob is .*, expected sha256:`+top)
}
