package kmod

import (
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds a module uncompressed, in bytes; the largest have a few dozen megabytes.
const maxModule = 256 << 20

// Load reads a module and unpacks it by the suffix of its name: not every
// kernel can unpack one itself (CONFIG_MODULE_DECOMPRESS).
func Load(name string, r io.Reader) ([]byte, error) {
	data, err := load(name, r)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel module %s: %w", name, err)
	}
	return data, nil
}

func load(name string, r io.Reader) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, ".xz"):
		plain, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return readAll(plain)
	case strings.HasSuffix(name, ".gz"):
		plain, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return readAll(plain)
	case strings.HasSuffix(name, ".zst"):
		plain, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer plain.Close()
		return readAll(plain)
	}
	return readAll(r)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = fmt.Errorf("it has more than %d bytes", maxModule)
	}
	return data, err
}
