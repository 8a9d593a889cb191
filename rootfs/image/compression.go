package image

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow is the window of zstd --ultra -22; a frame may ask for gigabytes.
const maxZstdWindow = 128 << 20

var (
	gzipMagic = []byte{0x1f, 0x8b}             // RFC 1952 section 2.3.1
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd} // RFC 8878 section 3.1.1
)

type compression int

const (
	uncompressed compression = iota
	gzipped
	zstandard
)

// detect recognises the compression of a blob by its first bytes. Media types lie (docker-archive
// calls its plain tars gzip), and neither magic can begin a tar whose first name is UTF-8. Only a
// zstd stream that begins with a skippable frame could, so there the media type decides.
func detect(head []byte, mediaType string) compression {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		return gzipped
	case bytes.HasPrefix(head, zstdMagic):
		return zstandard
	case strings.HasSuffix(mediaType, "zstd") && isSkippableFrame(head):
		return zstandard
	}
	return uncompressed
}

// isSkippableFrame: RFC 8878 section 3.1.2, magic 0x184D2A50 to 0x184D2A5F.
func isSkippableFrame(head []byte) bool {
	return len(head) >= 4 && binary.LittleEndian.Uint32(head)&^0xf == 0x184D2A50
}

// checkLayerType refuses a media type that is not that of a tar layer.
func checkLayerType(mediaType string) error {
	switch {
	case strings.Contains(mediaType, "encrypted"):
		return fmt.Errorf("the layer is encrypted (%s); decrypt the image first, for example with skopeo copy --decryption-key", mediaType)
	case mediaType == "", mediaType == "application/octet-stream", strings.Contains(mediaType, "tar"):
		return nil
	}
	return fmt.Errorf("media type %q is not that of a file system layer", mediaType)
}

// decompress returns the uncompressed stream of r; close frees the decoder.
func decompress(r *pump, mediaType string) (plain io.Reader, how compression, close func(), err error) {
	head, err := r.peek()
	if err != nil && err != io.EOF {
		return nil, 0, nil, err
	}
	how = detect(head, mediaType)
	switch how {
	case gzipped:
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10)) // it takes single bytes
		if err != nil {
			return nil, how, nil, fmt.Errorf("decompressing (gzip): %w", err)
		}
		return z, how, func() { z.Close() }, nil
	case zstandard:
		// One goroutine a layer: layers run in parallel already.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, how, nil, fmt.Errorf("decompressing (zstd): %w", err)
		}
		return z, how, z.Close, nil
	}
	return r, how, func() {}, nil
}

// estimateSize returns the count of bytes that a blob of the given size holds uncompressed, 0 if
// the blob does not say.
func estimateSize(blob io.ReaderAt, size int64, mediaType string) (int64, error) {
	head := make([]byte, zstd.HeaderMaxSize)
	n, err := blob.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	head = head[:n]
	switch detect(head, mediaType) {
	case gzipped:
		return gzipSize(blob, size)
	case zstandard:
		return zstdSize(head, size), nil
	}
	return size, nil
}

// gzipSize reads ISIZE, the length modulo 2^32 (RFC 1952 section 2.3.1). A blob of several members
// has only the last one's there; a value below the blob's own size is that, or a wrapped one. Real
// layers shrink less than fourfold or so, so a small blob did not wrap.
func gzipSize(blob io.ReaderAt, size int64) (int64, error) {
	var trailer [4]byte
	if size < 18 { // the smallest gzip file
		return 0, nil
	}
	if _, err := blob.ReadAt(trailer[:], size-4); err != nil {
		return 0, err
	}
	isize := int64(binary.LittleEndian.Uint32(trailer[:]))
	least := size - size/100 - 64 // stored blocks cost a little
	if isize < least && size < 1<<29 {
		return 0, nil
	}
	for isize < least {
		isize += 1 << 32
	}
	return isize, nil
}

// zstdSize takes the first frame's content size, if it can be the whole blob's.
func zstdSize(head []byte, size int64) int64 {
	var h zstd.Header
	if err := h.Decode(head); err != nil || !h.HasFCS {
		return 0
	}
	if h.FrameContentSize > 1<<50 || int64(h.FrameContentSize) < size-size/100-64 {
		return 0
	}
	return int64(h.FrameContentSize)
}
