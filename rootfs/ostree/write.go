package ostree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
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
	h, err := h.normalize()
	if err == nil && len(h.Xattrs) > 0 {
		h, err = r.asShown(h)
	}
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a file: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Checksum{}, err
	}
	if err := r.gate.enter(); err != nil {
		return Checksum{}, err
	}
	defer r.gate.leave()
	s := r.scratch.Get().(*scratch)
	defer r.scratch.Put(s)
	s.head = appendHeader(s.head[:0], &h)
	if size < 0 || h.IsSymlink() && size != 0 {
		return Checksum{}, fmt.Errorf("storing a file of mode %#o: size %d is impossible", h.Mode, size)
	}
	r.flusher.wrote(size)
	if size > smallContent {
		return r.writeLarge(ctx, s, &h, size, content)
	}
	if h.IsSymlink() {
		content = nil
	}
	return r.writeSmall(s, &h, int(size), content)
}

func (r *Repo) writeSmall(s *scratch, h *FileHeader, size int, content io.Reader) (Checksum, error) {
	data, err := readContent(s, size, content)
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a file: %w", err)
	}
	k := objectKey{s.sum(data), TypeFile}
	return k.sum, k.wrap(r.store(k, h, data))
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
	if len(m.Xattrs) > 0 {
		xattrs, err := normalizeXattrs(m.Xattrs)
		if err == nil {
			m.Xattrs, m.Mode, err = shown(m.Mode, xattrs)
		}
		if err != nil {
			return Checksum{}, fmt.Errorf("storing a %s: %w", TypeDirMeta, err)
		}
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
	return k.sum, k.wrap(r.store(k, &metadataHeader, data))
}

// metadataHeader is the owner and mode of objects that are not files.
var metadataHeader = FileHeader{Mode: modeRegular | 0o644}

// store writes an object whose bytes are in memory, unless it exists.
func (r *Repo) store(k objectKey, h *FileHeader, data []byte) error {
	mine, err := r.claim(k)
	if err != nil || !mine {
		return err
	}
	state := stateUnknown
	defer func() { r.settle(k, state) }()
	if err := r.place(k, h, data); err != nil {
		return err
	}
	if err := r.sample(k, h, int64(len(data))); err != nil {
		return err
	}
	state = presentState(k, h, int64(len(data)))
	return nil
}

func presentState(k objectKey, h *FileHeader, size int64) objectState {
	if k.typ == TypeFile && size == 0 && !h.IsSymlink() {
		return stateEmpty
	}
	return statePresent
}

// claim reports whether the caller is to write the object, and must settle it then. It waits while
// another goroutine writes the same object, so that nobody links or counts on half a file.
func (r *Repo) claim(k objectKey) (bool, error) {
	p := &r.prefixes[k.sum[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.known[k] == stateWriting {
		p.done.Wait()
	}
	if p.known[k] != stateUnknown {
		return false, nil
	}
	if !r.fresh {
		state, err := r.probe(k)
		if err != nil {
			return false, err
		}
		if state != stateUnknown {
			p.remember(k, state)
			return false, nil
		}
	}
	p.remember(k, stateWriting)
	return true, nil
}

// settle ends a claim.
func (r *Repo) settle(k objectKey, state objectState) {
	p := &r.prefixes[k.sum[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == stateUnknown {
		delete(p.known, k)
	} else {
		p.known[k] = state
	}
	p.done.Broadcast()
}

// probe looks on disk for an object that this process has not written.
func (r *Repo) probe(k objectKey) (objectState, error) {
	var st unix.Stat_t
	err := unix.Fstatat(r.objects.fd, prefixName(k.sum[0])+"/"+k.name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return stateUnknown, nil
	case err != nil:
		return stateUnknown, &os.PathError{Op: "stat", Path: k.ledgerName(), Err: err}
	case k.typ == TypeFile && st.Mode&modeTypeMask == modeRegular && st.Size == 0:
		return stateEmpty, nil
	}
	return statePresent, nil
}

// place makes the file of one object: in a repository of our own under its final name, in any other
// under a temporary one first, because other processes take a file of the final name for complete.
func (r *Repo) place(k objectKey, h *FileHeader, data []byte) error {
	dir, err := r.prefixDir(k.sum[0], true)
	if err != nil {
		return err
	}
	final := k.name()
	if r.fresh {
		err := r.makeFile(dir, final, k, h, data)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	name := r.tmpName()
	if err := r.makeFile(r.tmp.fd, name, k, h, data); err != nil {
		return err
	}
	return r.publish(name, dir, final)
}

// tmpName returns a name in tmp that no other process uses.
func (r *Repo) tmpName() string { return fmt.Sprintf("%s%d", r.tmpSeed, r.tmpSeq.Add(1)) }

// publish gives a finished temporary file its final name. An object that came into being meanwhile
// is as good.
func (r *Repo) publish(tmp string, dir int, final string) error {
	err := unix.Renameat2(r.tmp.fd, tmp, dir, final, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	removed := unix.Unlinkat(r.tmp.fd, tmp, 0)
	if err == unix.EEXIST {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("renaming %s/tmp/%s into place: %w", repoPath, tmp, err)
	}
	return errors.Join(err, removed)
}

// makeFile creates a new file or link with its metadata. On failure nothing is left.
func (r *Repo) makeFile(dir int, name string, k objectKey, h *FileHeader, data []byte) error {
	if h.IsSymlink() {
		return makeSymlink(dir, name, h)
	}
	f, err := openAt(r.ledger, k.ledgerName(), dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, h.Mode&0o777)
	if err != nil {
		return err
	}
	err = writeAll(f.fd, data)
	if err == nil {
		err = setMetadata(f.fd, h, k.typ)
	}
	if err = errors.Join(err, f.close()); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	return nil
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
		return fmt.Errorf("reading a new link's metadata: %w", err)
	}
	if st.Uid != h.UID || st.Gid != h.GID {
		if err := unix.Fchownat(dir, name, int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting a link's owner %d:%d: %w", h.UID, h.GID, err)
		}
	}
	for _, x := range h.Xattrs {
		if err := unix.Lsetxattr(procPath(dir, name), x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %s of a link: %w", x.Name, err)
		}
	}
	return nil
}
