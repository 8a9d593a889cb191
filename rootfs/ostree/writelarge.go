package ostree

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"installer/rootfs/composefs"
)

const (
	// chunkSize is how much of large content is read, hashed and written at once.
	chunkSize = 1 << 20
	// holeSize is the run of zero bytes that is left as a hole, in bytes. It is a multiple of every
	// usual block size.
	holeSize = 64 << 10
	// directAlign is the unit of which addresses, offsets and lengths of direct I/O are multiples
	// of, in bytes: no device in use has larger sectors (open(2), O_DIRECT).
	directAlign = 4096
	// reserveSize is how much space is reserved at once, in bytes.
	reserveSize = 64 << 20
)

// large streams content through the hash into a temporary file, whose final name is known at
// the end.
func (w *writer) large(ctx context.Context, s *scratch, h *FileHeader, size int64, content io.Reader) (Checksum, error) {
	name := w.folders.tmpName()
	f, err := openAt(w.folders.ledger, repoPath+"/tmp/"+name, w.folders.tmp.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return Checksum{}, fmt.Errorf("storing a file: %w", err)
	}
	large := &largeFile{fd: f.fd}
	if w.verity.wanted {
		large.verity = composefs.NewHash()
	}
	sum, err := large.stream(ctx, s, size, content)
	if err != nil {
		err = fmt.Errorf("storing a file of %d bytes: %w", size, err)
		return Checksum{}, errors.Join(err, f.close(), unix.Unlinkat(w.folders.tmp.fd, name, 0))
	}
	k := objectKey{sum, TypeFile}
	return sum, k.wrap(w.storeTemp(k, h, size, f, name, large.verity))
}

// storeTemp publishes a complete temporary file, or removes it when the object exists or something
// fails. It closes f. The file gets fs-verity if verity, the hash of its content, is not nil.
func (w *writer) storeTemp(k objectKey, h *FileHeader, size int64, f handle, name string, verity hash.Hash) error {
	mine, err := w.objects.claim(k)
	if err != nil || !mine {
		return errors.Join(err, f.close(), unix.Unlinkat(w.folders.tmp.fd, name, 0))
	}
	state := stateUnknown
	defer func() { w.objects.settle(k, state) }()
	dir, err := w.objects.prefixDir(k.sum[0], true)
	if err == nil {
		err = setMetadata(f.fd, h, TypeFile)
	}
	if err = errors.Join(err, f.close()); err == nil && verity != nil {
		err = w.protect(w.folders.tmp.fd, name, k, composefs.Digest(verity.Sum(nil)))
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(w.folders.tmp.fd, name, 0))
	}
	if err := w.folders.publish(name, dir, k.name()); err != nil {
		return err
	}
	if err := w.sample(k, h, size); err != nil {
		return err
	}
	state = statePresent
	return nil
}

// largeFile is a file of large content that is being written: past the page cache, where that can
// be. It is written once and read by nobody for now, so that a copy in memory, and its way from
// there, would be work for nothing.
type largeFile struct {
	fd     int
	direct bool
	verity hash.Hash // of the content, nil if nobody asks for it

	size     int64
	reserved int64  // end of the space that was reserved last
	gaps     []span // holes in reserved space
}

// span is a range of a file, in bytes.
type span struct{ start, end int64 }

// reserve asks for space ahead in one piece: otherwise direct writes make a piece for each write,
// with those of other files between them. It is a hint.
func (f *largeFile) reserve(pos int64) {
	end := min(f.size, pos+reserveSize)
	if f.direct && pos >= f.reserved && end-pos > chunkSize && unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, pos, end-pos) == nil {
		f.reserved = end
	}
}

// skip leaves a hole.
func (f *largeFile) skip(start, end int64) {
	if start >= f.reserved {
		return
	}
	if last := len(f.gaps) - 1; last >= 0 && f.gaps[last].end == start {
		f.gaps[last].end = end
		return
	}
	f.gaps = append(f.gaps, span{start, end})
}

// giveBack frees reserved space that was left as holes. A failure costs only space.
func (f *largeFile) giveBack() {
	for _, g := range f.gaps {
		_ = unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, g.start, g.end-g.start)
	}
}

// setDirect chooses how the file is written from here on.
func (f *largeFile) setDirect(direct bool) error {
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err == nil {
		flags &^= unix.O_DIRECT
		if direct {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags)
	}
	if err != nil {
		return &os.PathError{Op: "fcntl", Path: "temporary object", Err: err}
	}
	f.direct = direct
	return nil
}

// stream copies exactly size bytes to the file and returns the object's checksum.
func (f *largeFile) stream(ctx context.Context, s *scratch, size int64, content io.Reader) (Checksum, error) {
	var sum Checksum
	if content == nil {
		return sum, &SizeError{Want: size}
	}
	s.hash.Reset()
	s.hash.Write(s.head)
	buf := s.growAligned(chunkSize)
	f.size = size
	_ = f.setDirect(true) // not every file system can
	// The length comes first: XFS reserves space behind the end for a file that grows, and keeps it
	// for one that had space reserved. Later it would write out the file, and wait, to set its
	// length.
	if err := unix.Ftruncate(f.fd, size); err != nil {
		return sum, &os.PathError{Op: "truncate", Path: "temporary object", Err: err}
	}
	for pos := int64(0); pos < size; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		part := buf[:min(size-pos, chunkSize)]
		if n, err := io.ReadFull(content, part); err != nil {
			return sum, shortRead(err, size, pos+int64(n))
		}
		s.hash.Write(part)
		if f.verity != nil {
			f.verity.Write(part)
		}
		if err := f.writeSparse(part, pos); err != nil {
			return sum, err
		}
		pos += int64(len(part))
	}
	if err := expectEnd(content, size); err != nil {
		return sum, err
	}
	f.giveBack()
	startWriteback(f.fd)
	s.hash.Sum(sum[:0])
	return sum, nil
}

// writeSparse writes data at pos, except for blocks of holeSize zero bytes.
func (f *largeFile) writeSparse(data []byte, pos int64) error {
	start := 0 // of the run that must be written
	flush := func(to int) error {
		if to == start {
			return nil
		}
		f.reserve(pos + int64(start))
		return f.pwriteAll(data[start:to], pos+int64(start))
	}
	for i := 0; i < len(data); i += holeSize {
		next := min(i+holeSize, len(data))
		if !allZero(data[i:next]) {
			continue
		}
		if err := flush(i); err != nil {
			return err
		}
		f.skip(pos+int64(i), pos+int64(next))
		start = next
	}
	return flush(len(data))
}

// startWriteback has the kernel begin to write a file's pages to the device, which would else have
// little to do until Sync, and all of it then. It is a hint: an operation that fails here fails
// there too.
func startWriteback(fd int) { _ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }

// pwriteAll writes data, of which all but a file's last part is a multiple of directAlign.
func (f *largeFile) pwriteAll(data []byte, pos int64) error {
	for len(data) > 0 {
		if f.direct && (len(data)%directAlign != 0 || pos%directAlign != 0) {
			if err := f.setDirect(false); err != nil {
				return err
			}
		}
		n, err := unix.Pwrite(f.fd, data, pos)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EINVAL && f.direct { // the device wants more
			if err := f.setDirect(false); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("writing %d bytes at %d: %w", len(data), pos, err)
		}
		data, pos = data[n:], pos+int64(n)
	}
	return nil
}
