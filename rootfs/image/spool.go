package image

import (
	"context"
	"io"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spoolDir takes blobs unless [OpenOptions] names another directory. /tmp is often in memory, and
// too small.
const spoolDir = "/var/tmp"

// spool keeps the blobs of a remote source that a scan reads, compressed as they come, so that an
// import need not fetch them again. The files have no names: they go with the process. Where there
// is no room, blobs are fetched twice.
type spool struct {
	blobs blobSource
	dir   string

	mu      sync.Mutex
	filling bool
	files   map[string]*os.File // complete blobs by digest
}

func newSpool(blobs blobSource, dir string) *spool {
	if dir == "" {
		dir = spoolDir
	}
	return &spool{blobs: blobs, dir: dir, files: map[string]*os.File{}}
}

// fill says whether blobs that are opened from now on are kept.
func (s *spool) fill(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling = on
}

// open implements blobSource. A blob that was kept is given out, and is gone when it is closed,
// unless blobs are being kept.
func (s *spool) open(ctx context.Context, b servedBlob) (io.ReadCloser, error) {
	if kept, err := s.take(b.digest); kept != nil || err != nil {
		return kept, err
	}
	src, err := s.blobs.open(ctx, b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || !s.filling {
		return src, err
	}
	file, err := unnamed(s.dir)
	if err != nil {
		return src, nil // fetched twice
	}
	return &spoolingReader{ReadCloser: src, spool: s, digest: b.digest, file: file}, nil
}

// take opens a blob that was kept; nil if it was not.
func (s *spool) take(digest string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[digest]
	if f == nil {
		return nil, nil
	}
	if s.filling {
		return io.NopCloser(io.NewSectionReader(f, 0, math.MaxInt64)), nil
	}
	delete(s.files, digest)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unnamed makes a file that only its descriptor reaches.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+" (unnamed)"), nil
	}
	f, err := os.CreateTemp(dir, "installer-layer-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.Close() // it has no name: nothing can be lost
	}
	clear(s.files)
	return s.blobs.close()
}

// spoolingReader writes the bytes that are read of a blob to a file. It is used by one goroutine,
// and closed when that has ended or to end it.
type spoolingReader struct {
	io.ReadCloser
	spool  *spool
	digest string

	mu   sync.Mutex
	file *os.File // nil when it is given up or passed on
}

func (r *spoolingReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return n, err
	}
	if _, failed := r.file.Write(b[:n]); failed != nil {
		r.drop() // no room: fetched twice
	} else if err == io.EOF {
		r.spool.put(r.digest, r.file)
		r.file = nil
	}
	return n, err
}

// drop gives up the file; the lock is held.
func (r *spoolingReader) drop() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// put takes a complete blob over. That it is the right one is checked by who read it, and again by
// who reads it from here.
func (s *spool) put(digest string, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.files[digest]; old != nil {
		old.Close()
	}
	s.files[digest] = f
}

// Close implements io.Closer.
func (r *spoolingReader) Close() error {
	r.mu.Lock()
	r.drop()
	r.mu.Unlock()
	return r.ReadCloser.Close()
}
