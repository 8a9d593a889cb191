package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/gzip"
	splits "github.com/vbatts/tar-split/tar/storage"
	cstorage "go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
)

// placedLayer is a layer of containers-storage as the tar it was, put together from the parts that
// the store kept of that tar (a file in tar-split's format: everything but the contents) and the
// files where the store unpacked them.
//
// The store has this itself, as Store.Diff, which however locks the whole store for as long as a
// layer is read: layers come one after the other, and every other user of the store waits. It also
// sums up each content a second time. Here nothing is locked: a layer that goes or changes
// meanwhile does not have the digest that it must have.
type placedLayer struct {
	split    *os.File
	unpacked *gzip.Reader
	entries  splits.Unpacker
	files    drivers.FileGetCloser

	mu      sync.Mutex // it may be closed while it is read
	closed  bool
	at      int64     // position in the tar
	header  []byte    // of the bytes between contents, not yet read
	content io.Reader // of the file that comes next, nil if none
	name    string    // of that file
	left    int64     // bytes of it
	file    io.Closer // it, where it is open
	skipped bool      // it is not to be opened any more
}

// openPlaced opens a layer where it lies. An error that is [fs.ErrNotExist] or
// [errors.ErrUnsupported] says that this store cannot be read so.
func openPlaced(store cstorage.Store, id string) (_ *placedLayer, err error) {
	driver, err := store.GraphDriver()
	if err != nil {
		return nil, err
	}
	getter, ok := driver.(drivers.DiffGetterDriver)
	if !ok {
		return nil, fmt.Errorf("driver %s does not give out its files: %w", driver, errors.ErrUnsupported)
	}
	l := &placedLayer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	name := filepath.Join(store.GraphRoot(), driver.String()+"-layers", id+".tar-split.gz")
	if l.split, err = os.Open(name); err != nil {
		return nil, err
	}
	if l.unpacked, err = gzip.NewReader(l.split); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	l.entries = splits.NewJSONUnpacker(l.unpacked)
	l.files, err = getter.DiffGetter(id)
	return l, err
}

// Read implements io.Reader.
func (l *placedLayer) Read(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, os.ErrClosed
	}
	for len(l.header) == 0 && l.left == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	if len(l.header) > 0 {
		n = copy(b, l.header)
		l.header = l.header[n:]
	} else if n, err = l.readContent(b[:min(int64(len(b)), l.left)]); err != nil {
		return n, fmt.Errorf("reading %s of the store: %w", quoteShort(l.name), err)
	}
	l.at += int64(n)
	return n, nil
}

// next takes the tar's next piece.
func (l *placedLayer) next() error {
	if err := l.closeFile(); err != nil {
		return err
	}
	e, err := l.entries.Next()
	if err == io.EOF {
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the layer's headers (%s): %w", l.split.Name(), err)
	}
	switch e.Type {
	case splits.SegmentType:
		l.header = e.Payload
	case splits.FileType:
		if e.Size < 0 {
			return fmt.Errorf("the layer's headers (%s): %s has %d bytes", l.split.Name(), quoteShort(e.GetName()), e.Size)
		}
		l.name, l.left, l.skipped = e.GetName(), e.Size, false
	default:
		return fmt.Errorf("the layer's headers (%s): unknown kind of entry %d", l.split.Name(), e.Type)
	}
	return nil
}

func (l *placedLayer) readContent(b []byte) (n int, err error) {
	switch {
	case l.skipped:
		clear(b) // the rest of a content that nobody wants
		n = len(b)
	case l.file == nil:
		f, err := l.files.Get(l.name)
		if err != nil {
			return 0, err
		}
		l.file, l.content = f, f
		fallthrough
	default:
		n, err = l.content.Read(b)
	}
	if l.left -= int64(n); n > 0 {
		return n, nil
	}
	return 0, noEOF(err)
}

// Seek implements io.Seeker, forward from where the reader is. The rest of a content after a seek
// into it reads as zeros: only who passes over contents seeks.
func (l *placedLayer) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, fmt.Errorf("seeking in a layer of the store: %w", errors.ErrUnsupported)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for offset > 0 {
		if l.closed {
			return l.at, os.ErrClosed
		}
		if len(l.header) == 0 && l.left == 0 {
			if err := l.next(); err != nil {
				return l.at, noEOF(err)
			}
			continue
		}
		n := min(offset, int64(len(l.header)))
		l.header = l.header[n:]
		if n == 0 {
			n = min(offset, l.left)
			l.left -= n
			l.skipped = true
		}
		offset -= n
		l.at += n
	}
	return l.at, nil
}

func (l *placedLayer) closeFile() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file, l.content = nil, nil
	return err
}

// Close implements io.Closer.
func (l *placedLayer) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	l.closed = true
	errs := []error{l.closeFile()}
	if l.files != nil {
		errs = append(errs, l.files.Close())
	}
	if l.unpacked != nil {
		errs = append(errs, l.unpacked.Close())
	}
	if l.split != nil {
		errs = append(errs, l.split.Close())
	}
	return errors.Join(errs...)
}

// openStored opens a layer of a store, in place where that can be.
func openStored(store cstorage.Store, id string) (io.ReadCloser, error) {
	placed, err := openPlaced(store, id)
	if err == nil {
		return placed, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	return rebuilt(store, id)
}
