package bootable

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxUnpacked bounds an initramfs unpacked, in bytes.
const maxUnpacked = 4 << 30

// prepareRoot is the program of ostree that makes a deployment the root.
const prepareRoot = "ostree-prepare-root"

// A format is a compression that the kernel unpacks an initramfs of (lib/decompress.c). open is nil
// where nothing here reads it.
type format struct {
	name, magic string
	exact       bool // open reads no further than to the end of the compressed stream
	open        func(io.Reader) (io.Reader, func(), error)
}

func formats() []format {
	closing := func() {}
	return []format{
		{"gzip", "\x1f\x8b", true, func(r io.Reader) (io.Reader, func(), error) {
			z, err := gzip.NewReader(r)
			if err != nil {
				return nil, closing, err
			}
			z.Multistream(false)
			return z, closing, nil
		}},
		{"zstd", "\x28\xb5\x2f\xfd", false, func(r io.Reader) (io.Reader, func(), error) {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
			if err != nil {
				return nil, closing, err
			}
			return z, z.Close, nil
		}},
		{"xz", "\xfd7zXZ\x00", false, func(r io.Reader) (io.Reader, func(), error) {
			z, err := xz.ReaderConfig{SingleStream: true}.NewReader(r)
			return z, closing, err
		}},
		{"bzip2", "BZh", false, func(r io.Reader) (io.Reader, func(), error) { return bzip2.NewReader(r), closing, nil }},
		{"lzma", "\x5d\x00\x00", false, func(r io.Reader) (io.Reader, func(), error) {
			z, err := lzma.NewReader(r)
			return z, closing, err
		}},
		{"lzo", "\x89LZO", false, nil},
		{"lz4", "\x02\x21\x4c\x18", false, nil},
		{"lz4", "\x04\x22\x4d\x18", false, nil},
	}
}

// lookAtInitramfs reads archives one after another, as the kernel does: microcode comes first, and
// is not compressed.
func (f *Facts) lookAtInitramfs(r *sourceReader) {
	in := bufio.NewReaderSize(r, headSize)
	err := f.search(in, true)
	switch {
	case r.err != nil:
	case errors.Is(err, errFound):
		f.Searched, f.PrepareRoot = true, true
	case errors.Is(err, errNotRead):
	case errors.Is(err, errTooLarge):
	case err != nil:
		f.Problem = err.Error()
	default:
		f.Searched = true
	}
}

var (
	errFound   = errors.New("found")
	errNotRead = errors.New("nothing here reads that compression")
)

// search reads archives up to the end. It returns errFound as soon as it comes across the program.
// A compressed stream may end in something that the kernel passes over, and a library does not.
func (f *Facts) search(in *bufio.Reader, compressed bool) error {
	for archives := 0; ; archives++ {
		switch err := skipZeros(in); {
		case err == nil:
		case err == io.EOF && f.Initramfs != "":
			return nil
		case archives > 0 && !compressed && !errors.Is(err, errTooLarge):
			return errNotRead
		default:
			return atEnd(err)
		}
		start, _ := in.Peek(6) // an error comes again below
		if magic := string(start); magic == "070701" || magic == "070702" {
			if f.Initramfs == "" {
				f.Initramfs = "cpio"
			}
			if err := searchArchive(in); err != nil {
				return err
			}
			continue
		}
		if !compressed {
			return fmt.Errorf("its content is no archive in the format newc: it begins with %x", start)
		}
		if more, err := f.unpack(in, start); err != nil || !more {
			return err
		}
	}
}

// unpack searches the compressed stream that comes next. More may follow it.
func (f *Facts) unpack(in *bufio.Reader, start []byte) (more bool, err error) {
	for _, c := range formats() {
		if !bytes.HasPrefix(start, []byte(c.magic)) {
			continue
		}
		f.Initramfs = c.name
		if c.open == nil {
			return false, errNotRead
		}
		plain, free, err := c.open(in)
		if err != nil {
			return false, fmt.Errorf("unpacking it as %s: %w", c.name, err)
		}
		defer free()
		err = f.search(bufio.NewReaderSize(&limitedReader{plain, maxUnpacked}, headSize), false)
		switch {
		case err == nil && c.exact:
			return true, nil
		case err == nil:
			return false, f.searchedAll(in)
		case errors.Is(err, errFound) || errors.Is(err, errTooLarge) || errors.Is(err, errNotRead):
			return false, err
		}
		return false, fmt.Errorf("unpacking it as %s: %w", c.name, err)
	}
	return false, fmt.Errorf("it is neither an archive in the format newc nor compressed in a way that a kernel knows: it begins with %x", start)
}

// searchedAll returns errNotRead where something follows the stream that was unpacked.
func (f *Facts) searchedAll(in *bufio.Reader) error {
	if err := skipZeros(in); err != io.EOF {
		return errNotRead
	}
	return nil
}

// limitedReader fails where there is more than the limit.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// skipZeros passes over the padding between archives.
func skipZeros(in *bufio.Reader) error {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return in.UnreadByte()
		}
	}
}

// The header of an entry (Documentation/driver-api/early-userspace/buffer-format.rst): a magic and
// 13 numbers of eight hexadecimal digits.
const (
	headerSize  = 6 + 13*8
	sizeField   = 6 + 6*8
	nameField   = 6 + 11*8
	longestName = 4096
	trailer     = "TRAILER!!!"
)

// searchArchive reads one archive up to its trailer.
func searchArchive(in *bufio.Reader) error {
	header := make([]byte, headerSize)
	for {
		if _, err := io.ReadFull(in, header); err != nil {
			return atEnd(err)
		}
		if magic := string(header[:6]); magic != "070701" && magic != "070702" {
			return fmt.Errorf("it is damaged: an entry of the archive begins with %q", magic)
		}
		size, sizeErr := strconv.ParseUint(string(header[sizeField:sizeField+8]), 16, 32)
		length, nameErr := strconv.ParseUint(string(header[nameField:nameField+8]), 16, 32)
		if sizeErr != nil || nameErr != nil || length == 0 || length > longestName {
			return errors.New("it is damaged: an entry of the archive has no valid sizes")
		}
		name := make([]byte, length)
		if _, err := io.ReadFull(in, name); err != nil {
			return atEnd(err)
		}
		text := string(bytes.TrimRight(name, "\x00"))
		if text == trailer {
			return nil
		}
		if path.Base(text) == prepareRoot {
			return errFound
		}
		if err := skip(in, padding(headerSize+length)+size+padding(size)); err != nil {
			return err
		}
	}
}

// padding is how many bytes follow n for the next part to begin at a multiple of four.
func padding(n uint64) uint64 { return -n & 3 }

func skip(in *bufio.Reader, n uint64) error {
	_, err := io.CopyN(io.Discard, in, int64(n))
	return atEnd(err)
}

// atEnd describes an archive that ends too early.
func atEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("it ends in the middle of the archive")
	}
	return err
}
