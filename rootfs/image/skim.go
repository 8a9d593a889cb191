package image

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// skimBuffer is how much of a blob is read at once where most of it is passed over, in bytes: the
// header of an entry with the content of a small file.
const skimBuffer = 8 << 10

// skipReader buffers little, so that seeking over contents reads little of them.
type skipReader struct {
	ctx  context.Context
	src  io.ReadSeeker
	data []byte // read, and not yet consumed
	buf  [skimBuffer]byte
}

// Read implements io.Reader.
func (s *skipReader) Read(b []byte) (int, error) {
	if len(s.data) == 0 {
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := s.src.Read(s.buf[:])
		if n == 0 {
			return 0, err
		}
		s.data = s.buf[:n]
	}
	n := copy(b, s.data)
	s.data = s.data[n:]
	return n, nil
}

// Seek implements io.Seeker as far as [archive/tar] uses it: forward from where the reader is.
func (s *skipReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, fmt.Errorf("passing over a content: %w", errors.ErrUnsupported)
	}
	if buffered := int64(len(s.data)); offset > buffered {
		s.data = nil
		return s.src.Seek(offset-buffered, io.SeekCurrent)
	}
	s.data = s.data[offset:]
	at, err := s.src.Seek(0, io.SeekCurrent)
	return at - int64(len(s.data)), err
}
