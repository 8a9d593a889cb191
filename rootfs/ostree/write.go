package ostree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/rootfs/composefs"
)

// smallContent is the size, in bytes, up to which content is read before it is written: its name is
// then known first, and duplicates are never written.
const smallContent = 1 << 20

// scratch holds the buffers of one write, reused by later ones.
type scratch struct {
	head []byte
	data []byte
	hash hash.Hash
}

func newScratch() any { return &scratch{hash: sha256.New()} }

// sum hashes the header and the content.
func (s *scratch) sum(data []byte) (c Checksum) {
	s.hash.Reset()
	s.hash.Write(s.head)
	s.hash.Write(data)
	s.hash.Sum(c[:0])
	return c
}

// grow returns a buffer of n bytes that is valid until the scratch is returned.
func (s *scratch) grow(n int) []byte {
	if cap(s.data) < n {
		s.data = make([]byte, n)
	}
	return s.data[:n]
}

// growAligned is grow for direct I/O.
func (s *scratch) growAligned(n int) []byte {
	buf := s.grow(n + directAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % directAlign)
	return buf[skip : skip+n]
}

// WriteContent stores a regular file or symbolic link and returns its checksum. The content is
// hashed as it is read; an object that exists already is not written again. Of a link, size is 0
// and the content is not read. Exactly size bytes must come from content, or the error is a
// *SizeError. A device, fifo or socket is a *FileTypeError. Nothing is synced: see Sync.
func (r *Repo) WriteContent(ctx context.Context, h FileHeader, size int64, content io.Reader) (Checksum, error) {
	if err := r.gate.enter(); err != nil {
		return Checksum{}, err
	}
	defer r.gate.leave()
	return r.writer.content(ctx, h, size, content)
}

// writer stores objects.
type writer struct {
	folders *folders
	objects *objects
	flusher *flusher
	scratch sync.Pool // of *scratch
	samples sync.Map  // shape -> objectKey, of the first object of each shape
	verity  verity
}

func (w *writer) content(ctx context.Context, h FileHeader, size int64, content io.Reader) (Checksum, error) {
	h, err := w.folders.shown(h)
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a file: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Checksum{}, err
	}
	s := w.scratch.Get().(*scratch)
	defer w.scratch.Put(s)
	s.head = appendHeader(s.head[:0], &h)
	if size < 0 || h.IsSymlink() && size != 0 {
		return Checksum{}, fmt.Errorf("storing a file of mode %#o: size %d is impossible", h.Mode, size)
	}
	w.flusher.wrote(size)
	if size > smallContent {
		return w.large(ctx, s, &h, size, content)
	}
	if h.IsSymlink() {
		content = nil
	}
	return w.small(s, &h, int(size), content)
}

func (w *writer) small(s *scratch, h *FileHeader, size int, content io.Reader) (Checksum, error) {
	data, err := readContent(s, size, content)
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a file: %w", err)
	}
	k := objectKey{s.sum(data), TypeFile}
	return k.sum, k.wrap(w.store(k, h, data))
}

// readContent reads all of a small file's content.
func readContent(s *scratch, size int, content io.Reader) ([]byte, error) {
	if content == nil {
		if size > 0 {
			return nil, &SizeError{Want: int64(size)}
		}
		return nil, nil
	}
	// Bytes in memory are used where they lie: a bytes.Reader hands out its own slice, which
	// outlives this call's use of it.
	if mem, ok := content.(*bytes.Reader); ok && mem.Len() == size {
		var lent borrow
		_, err := mem.WriteTo(&lent)
		return lent.data, err
	}
	buf := s.grow(size)
	if n, err := io.ReadFull(content, buf); err != nil {
		return nil, shortRead(err, int64(size), int64(n))
	}
	return buf, expectEnd(content, int64(size))
}

type borrow struct{ data []byte }

func (b *borrow) Write(p []byte) (int, error) {
	b.data = p
	return len(p), nil
}

func shortRead(err error, want, got int64) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &SizeError{Want: want, Got: got}
	}
	return fmt.Errorf("reading content: %w", err)
}

// expectEnd checks that nothing follows the size bytes that were read.
func expectEnd(content io.Reader, size int64) error {
	var one [1]byte
	n, err := io.ReadFull(content, one[:])
	if n > 0 {
		return &SizeError{Want: size, Got: size + 1}
	}
	if err != io.EOF {
		return fmt.Errorf("reading content: %w", err)
	}
	return nil
}

// WriteDirMeta stores a directory's metadata and returns its checksum.
func (r *Repo) WriteDirMeta(m DirMeta) (Checksum, error) {
	m, err := m.Shown()
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a %s: %w", TypeDirMeta, err)
	}
	return r.writeMetadata(TypeDirMeta, m)
}

// WriteDirTree stores a directory's list and returns its checksum. The objects that it names should
// be stored before.
func (r *Repo) WriteDirTree(t DirTree) (Checksum, error) { return r.writeMetadata(TypeDirTree, t) }

// WriteCommit stores a commit and returns its checksum. Everything reachable from it should be
// stored before.
func (r *Repo) WriteCommit(c Commit) (Checksum, error) { return r.writeMetadata(TypeCommit, c) }

func (r *Repo) writeMetadata(t ObjectType, v interface{ Encode() ([]byte, error) }) (Checksum, error) {
	data, err := v.Encode()
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a %s: %w", t, err)
	}
	if err := r.gate.enter(); err != nil {
		return Checksum{}, err
	}
	defer r.gate.leave()
	k := objectKey{sha256.Sum256(data), t}
	return k.sum, k.wrap(r.writer.store(k, &metadataHeader, data))
}

// metadataHeader is the owner and mode of objects that are not files.
var metadataHeader = FileHeader{Mode: modeRegular | 0o644}

// store writes an object whose bytes are in memory, unless it exists.
func (w *writer) store(k objectKey, h *FileHeader, data []byte) error {
	mine, err := w.objects.claim(k)
	if err != nil || !mine {
		return err
	}
	state := stateUnknown
	defer func() { w.objects.settle(k, state) }()
	if err := w.place(k, h, data); err != nil {
		return err
	}
	if err := w.sample(k, h, int64(len(data))); err != nil {
		return err
	}
	state = presentState(k, h, int64(len(data)))
	return nil
}

// place makes the file of one object: in a repository of our own under its final name, in any other
// under a temporary one first, because other processes take a file of the final name for complete.
func (w *writer) place(k objectKey, h *FileHeader, data []byte) error {
	dir, err := w.objects.prefixDir(k.sum[0], true)
	if err != nil {
		return err
	}
	final := k.name()
	if w.objects.fresh {
		err := w.makeFile(dir, final, k, h, data)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	name := w.folders.tmpName()
	if err := w.makeFile(w.folders.tmp.fd, name, k, h, data); err != nil {
		return err
	}
	return w.folders.publish(name, dir, final)
}

// makeFile creates a new file or link with its metadata. On failure nothing is left.
func (w *writer) makeFile(dir int, name string, k objectKey, h *FileHeader, data []byte) error {
	if h.IsSymlink() {
		return makeSymlink(dir, name, h)
	}
	f, err := openAt(w.folders.ledger, k.ledgerName(), dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, h.Mode&0o777)
	if err != nil {
		return err
	}
	err = writeAll(f.fd, data)
	if err == nil {
		err = setMetadata(f.fd, h, k.typ)
	}
	if err = errors.Join(err, f.close()); err == nil && w.verity.wanted && k.typ != TypeCommitMeta {
		err = w.protect(dir, name, k, digestOf(data))
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	return nil
}

// protect enables fs-verity on the finished file of an object.
func (w *writer) protect(dir int, name string, k objectKey, digest composefs.Digest) error {
	err := w.verity.protect(w.folders.ledger, dir, name, k.ledgerName(), digest)
	if err == nil && k.typ == TypeFile {
		w.verity.known.Store(k.sum, digest)
	}
	return err
}

// setMetadata finishes the open file of an object. Times of metadata objects stay as they are.
func setMetadata(fd int, h *FileHeader, t ObjectType) error {
	if err := setFileMetadata(fd, h); err != nil || t != TypeFile {
		return err
	}
	return zeroModTime(fd)
}

// setFileMetadata sets owner, mode and attributes. The order matters: chown clears set-id bits and
// capabilities. Metadata that is right from the start is left alone, because looking costs a
// fraction of a change that must be journaled.
func setFileMetadata(fd int, h *FileHeader) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("reading a new file's metadata: %w", err)
	}
	chown := st.Uid != h.UID || st.Gid != h.GID
	if chown {
		if err := unix.Fchown(fd, int(h.UID), int(h.GID)); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", h.UID, h.GID, err)
		}
	}
	if chown || st.Mode != h.Mode {
		if err := unix.Fchmod(fd, h.Mode&modePermMask); err != nil {
			return fmt.Errorf("setting mode %#o: %w", h.Mode, err)
		}
	}
	for _, x := range h.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %s (%d bytes): %w", x.Name, len(x.Value), err)
		}
	}
	return nil
}

// zeroModTime sets an open file's modification time to 1970 and leaves the access time.
func zeroModTime(fd int) error {
	if err := futimens(fd, &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {}}); err != nil {
		return fmt.Errorf("setting the modification time: %w", err)
	}
	return nil
}

func makeSymlink(dir int, name string, h *FileHeader) error {
	if err := unix.Symlinkat(h.Target, dir, name); err != nil {
		return fmt.Errorf("creating a symbolic link to %.80q: %w", h.Target, err)
	}
	if err := setLinkMetadata(dir, name, h); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	return nil
}

func setLinkMetadata(dir int, name string, h *FileHeader) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("reading the metadata of a new link or device: %w", err)
	}
	if st.Uid != h.UID || st.Gid != h.GID {
		if err := unix.Fchownat(dir, name, int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting the owner %d:%d: %w", h.UID, h.GID, err)
		}
	}
	for _, x := range h.Xattrs {
		if err := unix.Lsetxattr(procPath(dir, name), x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %s of a link or device: %w", x.Name, err)
		}
	}
	return nil
}
