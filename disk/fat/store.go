package fat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend"
)

// coalesce is how much adjacent file data is gathered into one write, in bytes.
const coalesce = 1 * mib

// store is the storage that the library works on: a volume's place. The library rewrites both
// copies of the allocation table for every file and writes content a cluster at a time, so the
// front part of the volume is kept in memory until flush, and adjacent clusters are gathered.
type store struct {
	to      Storage
	size    int64
	front   []byte // the volume's first bytes: reserved sectors and both tables, nil after flush
	pending []byte // content not yet written
	at      int64  // where pending begins in the volume
	failed  error  // the first write that failed: the library does not report each
}

var (
	_ backend.Storage      = (*store)(nil)
	_ backend.WritableFile = (*store)(nil)
)

// errNotOffered is the error of operations that the library has no use for.
var errNotOffered = errors.New("not offered by this storage")

// within refuses a range outside the volume: the library's idea of its last cluster is too
// generous, and must not reach the next partition.
func (s *store) within(off int64, n int) error {
	if off < 0 || off > s.size-int64(n) {
		return fmt.Errorf("range %d+%d is outside the file system of %d bytes", off, n, s.size)
	}
	return nil
}

// WriteAt writes into the volume.
func (s *store) WriteAt(p []byte, off int64) (int, error) {
	if err := s.within(off, len(p)); err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(s.front)) {
		n = copy(s.front[off:], p)
	}
	if n == len(p) {
		return n, nil
	}
	if err := s.gather(p[n:], off+int64(n)); err != nil {
		return n, err
	}
	return len(p), nil
}

// gather appends to the pending content, or writes that out first when the new content is
// elsewhere.
func (s *store) gather(p []byte, off int64) error {
	if len(s.pending) > 0 && (off != s.at+int64(len(s.pending)) || len(s.pending)+len(p) > coalesce) {
		if err := s.writePending(); err != nil {
			return err
		}
	}
	if len(s.pending) == 0 {
		s.at = off
	}
	s.pending = append(s.pending, p...)
	return nil
}

func (s *store) writePending() error {
	if s.failed != nil {
		return s.failed
	}
	if _, err := s.to.WriteAt(s.pending, s.at); err != nil {
		s.failed = err
		return err
	}
	s.pending = s.pending[:0]
	return nil
}

// ReadAt reads from the volume, pending writes included.
func (s *store) ReadAt(p []byte, off int64) (int, error) {
	if err := s.within(off, len(p)); err != nil {
		return 0, err
	}
	if err := s.writePending(); err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(s.front)) {
		n = copy(p, s.front[off:])
	}
	if n == len(p) {
		return n, nil
	}
	m, err := s.to.ReadAt(p[n:], off+int64(n))
	return n + m, err
}

// flush writes everything out. From then on the storage reads and writes the disk itself.
func (s *store) flush() error {
	if err := s.writePending(); err != nil {
		return err
	}
	if _, err := s.to.WriteAt(s.front, 0); err != nil {
		return err
	}
	s.front = nil
	return nil
}

// Sys is not offered: nothing may go round the storage to the file.
func (s *store) Sys() (*os.File, error) { return nil, errNotOffered }

// Writable returns the storage itself.
func (s *store) Writable() (backend.WritableFile, error) { return s, nil }

// Path is not offered.
func (s *store) Path() string { return "" }

// Stat is not offered.
func (s *store) Stat() (fs.FileInfo, error) { return nil, errNotOffered }

// Read is not offered: the storage has no position.
func (s *store) Read([]byte) (int, error) { return 0, errNotOffered }

// Seek is not offered, except for the size.
func (s *store) Seek(off int64, whence int) (int64, error) {
	if whence == io.SeekEnd && off == 0 {
		return s.size, nil
	}
	return 0, errNotOffered
}

// Close does nothing: the storage is the caller's.
func (s *store) Close() error { return nil }
