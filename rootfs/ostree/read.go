package ostree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// mapThreshold is the size, in bytes, above which a metadata object is mapped rather than read,
	// as the reference implementation does.
	mapThreshold = 16 << 10
	// maxMetadata bounds a metadata object, in bytes. The largest real ones are a few hundred KiB;
	// a million names in one directory make some 60 MiB.
	maxMetadata = 256 << 20
)

// Object is a metadata object that was loaded. It must be closed; until then a large one pins the
// file system through a mapping, with no descriptor open.
type Object struct {
	mu       sync.Mutex
	key      objectKey
	data     []byte
	mapped   bool
	closed   bool
	released func()
}

// Bytes returns the object's bytes, which must not be changed, nor used after Close: a mapping is
// gone then. After Close the error is ErrClosed.
func (o *Object) Bytes() ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, o.key.wrap(ErrClosed)
	}
	return o.data, nil
}

// Close gives the object back. A second Close returns ErrClosed.
func (o *Object) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return o.key.wrap(ErrClosed)
	}
	data := o.data
	o.closed, o.data = true, nil
	if o.mapped {
		if err := unix.Munmap(data); err != nil {
			// Still mapped, so it stays in the ledger.
			return o.key.wrap(fmt.Errorf("unmapping %d bytes: %w", len(data), err))
		}
	}
	o.released()
	return nil
}

// Load opens a metadata object (not a file: see ReadContent). Objects larger than 16 KiB are mapped
// and stand in the ledger as "map", others are read and stand there as "object". The bytes are not
// checked against the checksum. A missing object is ErrNotFound.
func (r *Repo) Load(t ObjectType, c Checksum) (*Object, error) {
	if err := r.gate.enter(); err != nil {
		return nil, err
	}
	defer r.gate.leave()
	k := objectKey{c, t}
	object, err := r.objects.load(k)
	return object, k.wrap(err)
}

func (o *objects) load(k objectKey) (*Object, error) {
	if !k.typ.isMetadata() {
		return nil, errors.New("only metadata objects can be loaded")
	}
	f, size, err := o.open(k)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if size > maxMetadata {
		return nil, formatErrorf("a metadata object of %d bytes is larger than %d", size, maxMetadata)
	}
	object := &Object{key: k, mapped: size > mapThreshold}
	if object.mapped {
		if object.data, err = unix.Mmap(f.fd, 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
			return nil, fmt.Errorf("mapping %d bytes: %w", size, err)
		}
		object.released = o.folders.ledger.Opened("map", f.name)
		return object, nil
	}
	object.data = make([]byte, size)
	if err := readAll(f.fd, object.data); err != nil {
		return nil, err
	}
	object.released = o.folders.ledger.Opened("object", f.name)
	return object, nil
}

// open opens an object that is a regular file and returns its size.
func (o *objects) open(k objectKey) (handle, int64, error) {
	dir, err := o.prefixDir(k.sum[0], false)
	if err != nil {
		return handle{fd: -1}, 0, notFound(err)
	}
	// O_NONBLOCK: a fifo in the object's place must not block.
	f, err := openAt(o.folders.ledger, k.ledgerName(), dir, k.name(), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return f, 0, notFound(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return f, 0, errors.Join(&os.PathError{Op: "stat", Path: f.name, Err: err}, f.close())
	}
	if st.Mode&modeTypeMask != modeRegular {
		return f, 0, errors.Join(formatErrorf("%s is not a regular file", f.name), f.close())
	}
	return f, st.Size, nil
}

func notFound(err error) error {
	if isNotExist(err) {
		return ErrNotFound
	}
	return err
}

// WithObject loads a metadata object for the time of one call of fn, which must not keep data.
func (r *Repo) WithObject(t ObjectType, c Checksum, fn func(data []byte) error) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	return r.objects.with(objectKey{c, t}, fn)
}

func (o *objects) with(k objectKey, fn func(data []byte) error) error {
	object, err := o.load(k)
	if err != nil {
		return k.wrap(err)
	}
	return errors.Join(k.wrap(fn(object.data)), object.Close())
}

// LoadCommit loads and decodes a commit; nothing stays open.
func (r *Repo) LoadCommit(c Checksum) (Commit, error) {
	return decoded(r, TypeCommit, c, DecodeCommit)
}

// LoadDirTree loads and decodes a directory's list; nothing stays open.
func (r *Repo) LoadDirTree(c Checksum) (DirTree, error) {
	return decoded(r, TypeDirTree, c, DecodeDirTree)
}

// LoadDirMeta loads and decodes a directory's metadata; nothing stays open.
func (r *Repo) LoadDirMeta(c Checksum) (DirMeta, error) {
	return decoded(r, TypeDirMeta, c, DecodeDirMeta)
}

func decoded[T any](r *Repo, t ObjectType, c Checksum, decode func([]byte) (T, error)) (T, error) {
	var v T
	err := r.WithObject(t, c, func(data []byte) (err error) {
		v, err = decode(data)
		return err
	})
	return v, err
}

// ReadContent opens a file object for the time of one call of fn: its header as the file system
// shows it, its size in bytes, and its content, which is nil for a symbolic link. A missing object
// is ErrNotFound.
func (r *Repo) ReadContent(c Checksum, fn func(h FileHeader, size int64, content io.Reader) error) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	k := objectKey{c, TypeFile}
	return k.wrap(r.objects.readContent(k, fn))
}

// Stat returns the header of a file object as the file system shows it, and its size in bytes. A
// missing object is ErrNotFound.
func (r *Repo) Stat(c Checksum) (h FileHeader, size int64, err error) {
	if err := r.gate.enter(); err != nil {
		return h, 0, err
	}
	defer r.gate.leave()
	k := objectKey{c, TypeFile}
	h, size, err = r.objects.stat(k)
	return h, size, k.wrap(err)
}

func (o *objects) stat(k objectKey) (h FileHeader, size int64, err error) {
	dir, err := o.prefixDir(k.sum[0], false)
	if err != nil {
		return h, 0, notFound(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, k.name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return h, 0, notFound(&os.PathError{Op: "stat", Path: k.ledgerName(), Err: err})
	}
	if st.Mode&modeTypeMask == modeSymlink {
		h, err = readLinkHeader(dir, k.name(), &st)
		return h, 0, err
	}
	h = FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode}
	h.Xattrs, err = readPathXattrs(procPath(dir, k.name()))
	return h, st.Size, err
}

// readPathXattrs reads the attributes of a file or link.
func readPathXattrs(path string) ([]Xattr, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

func (o *objects) readContent(k objectKey, fn func(FileHeader, int64, io.Reader) error) error {
	dir, err := o.prefixDir(k.sum[0], false)
	if err != nil {
		return notFound(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, k.name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return notFound(&os.PathError{Op: "stat", Path: k.ledgerName(), Err: err})
	}
	if st.Mode&modeTypeMask != modeSymlink {
		return o.withFile(k, fn)
	}
	h, err := readLinkHeader(dir, k.name(), &st)
	if err != nil {
		return err
	}
	return fn(h, 0, nil)
}

func (o *objects) withFile(k objectKey, fn func(FileHeader, int64, io.Reader) error) error {
	f, _, err := o.open(k)
	if err != nil {
		return err
	}
	defer f.close()
	h, size, err := readFileHeader(f.fd)
	if err != nil {
		return err
	}
	if err := fn(h, size, fdReader(f.fd)); err != nil {
		return err
	}
	return f.close()
}

// readFileHeader rebuilds the header of an open regular file.
func readFileHeader(fd int) (FileHeader, int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return FileHeader{}, 0, fmt.Errorf("reading a file's metadata: %w", err)
	}
	h := FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode}
	var err error
	h.Xattrs, err = readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
	return h, st.Size, err
}

func readLinkHeader(dir int, name string, st *unix.Stat_t) (FileHeader, error) {
	h := FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return h, fmt.Errorf("reading a symbolic link: %w", err)
	}
	h.Target = string(buf[:n])
	h.Xattrs, err = readPathXattrs(procPath(dir, name))
	return h, err
}

// maxXattr is the kernel's limit for a value and for the list of names, in bytes (XATTR_SIZE_MAX,
// XATTR_LIST_MAX).
const maxXattr = 64 << 10

var xattrBuffers = sync.Pool{New: func() any { return new([2][maxXattr]byte) }}

// readXattrs reads all attributes, sorted and without empty ones.
func readXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]Xattr, error) {
	buffers := xattrBuffers.Get().(*[2][maxXattr]byte)
	defer xattrBuffers.Put(buffers)
	buf, value := buffers[0][:], buffers[1][:]
	n, err := list(buf)
	if n == 0 || err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	var out []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := get(name, value)
		if err != nil {
			return nil, fmt.Errorf("reading extended attribute %s: %w", name, err)
		}
		out = append(out, Xattr{Name: name, Value: append([]byte(nil), value[:n]...)})
	}
	return normalizeXattrs(out)
}

// readSmallFile reads a file of at most limit bytes.
func readSmallFile(l Ledger, dir int, path, name string, limit int64) ([]byte, error) {
	f, err := openAt(l, name, dir, path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return readLimited(f, limit)
}

func readLimited(f handle, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(fdReader(f.fd), limit+1))
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: f.name, Err: err}
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.name, limit)
	}
	return data, nil
}
