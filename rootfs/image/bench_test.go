package image

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkManyEntries measures the cost of an entry, apart from its content.
func BenchmarkManyEntries(b *testing.B) {
	path := filepath.Join(b.TempDir(), "layer.tar")
	writeManyEntries(b, path, 100_000)
	plain, err := os.ReadFile(path)
	must(b, err)
	benchmarkImport(b, layoutOf(b, plainLayer(plain)))
}

// BenchmarkGzip measures one large compressed layer: read, decompress, hash and parse must overlap.
func BenchmarkGzip(b *testing.B) {
	benchmarkImport(b, layoutOf(b, gzipLayer(b, tarOf(b, file("text", text(64<<20))))))
}

// text is some content that compresses as programs do, not as zeros do.
func text(size int) string {
	b := make([]byte, size)
	x := uint32(1)
	for i := range b {
		if x = x*1664525 + 1013904223; i%3 == 0 {
			b[i] = byte(x >> 24)
		} else {
			b[i] = byte(x >> 30)
		}
	}
	return string(b)
}

func benchmarkImport(b *testing.B, ref Ref) {
	for b.Loop() {
		img, err := Open(b.Context(), ref, accept(b))
		must(b, err)
		b.SetBytes(img.SourceSize())
		_, err = img.Import(b.Context(), constantSink{}, ImportOptions{})
		must(b, err)
		must(b, img.Close())
	}
}
