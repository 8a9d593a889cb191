package fat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// chunk is how much of a file is read and written at a time, in bytes.
const chunk = 4 * mib

// Storage is the place of a volume, whose first byte is at 0.
type Storage interface {
	io.ReaderAt
	io.WriterAt
}

// Options describe a new volume.
type Options struct {
	Size   int64 // bytes
	Sector int   // bytes
	Hidden int64 // sectors before the volume on its disk
	Serial uint32
	Label  string // at most 11 characters, in upper case
}

// Writer makes a volume. It is not safe for concurrent use. Nothing of the volume is valid until
// [Writer.Finish].
type Writer struct {
	store   *store
	fs      *fat32.FileSystem
	o       Options
	geo     Geometry
	written []content
	broken  error // the error after which the volume cannot be completed
}

// content is a file as the caller gave it, to be compared with the content of the disk in the end.
type content struct {
	path string
	size int64
	sum  [sha256.Size]byte
}

// NoSpaceError means that a file does not fit the volume.
type NoSpaceError struct {
	Path string
	Need int64 // bytes, in whole clusters
	Free int64 // bytes
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no space for %s on the EFI system partition: %d bytes are needed, %d are free; make it larger", e.Path, e.Need, e.Free)
}

// Create begins a volume.
func Create(to Storage, o Options) (*Writer, error) {
	if err := checkLabel(o.Label); err != nil {
		return nil, err
	}
	w := &Writer{o: o, geo: Plan(o.Size, o.Sector)}
	if !w.geo.IsFAT32() {
		return nil, fmt.Errorf("%d MiB are too small for FAT32; %d MiB are needed", o.Size/mib, Smallest(o.Sector)/mib)
	}
	w.store = &store{to: to, size: o.Size, front: make([]byte, w.geo.DataStart)}
	var err error
	if w.fs, err = fat32.Create(w.store, o.Size, 0, int64(o.Sector), o.Label, true); err != nil {
		return nil, err
	}
	return w, w.finishBootSector()
}

// finishBootSector checks the geometry that the library chose and sets the fields that it leaves
// out: the sectors before the partition and the serial number, in the boot sector and its copy
// (Microsoft FAT specification, BPB_HiddSec and BS_VolID).
func (w *Writer) finishBootSector() error {
	b := w.store.front
	if got := geometryOf(b); got != w.geo {
		return fmt.Errorf("its geometry is %+v, expected %+v", got, w.geo)
	}
	for _, at := range []int64{0, BackupBootSector * int64(w.o.Sector)} {
		binary.LittleEndian.PutUint32(b[at+28:], uint32(min(w.o.Hidden, 1<<32-1)))
		binary.LittleEndian.PutUint32(b[at+67:], w.o.Serial)
	}
	return nil
}

// MkdirAll makes a directory and those above it. Directories that exist are left as they are.
func (w *Writer) MkdirAll(dir string) error {
	names, err := splitPath(dir)
	if err != nil {
		return fmt.Errorf("making directory %s on the EFI system partition: %w", dir, err)
	}
	at := "."
	for _, name := range names {
		if err := w.cause(w.mkdir(at, name)); err != nil {
			return fmt.Errorf("making directory %s on the EFI system partition: %w", dir, err)
		}
		at = path.Join(at, name)
	}
	return nil
}

// cause returns the first failed write, else err: the library ignores some failed writes.
func (w *Writer) cause(err error) error {
	if w.store.failed != nil {
		return w.store.failed
	}
	return err
}

// mkdir makes one directory unless it exists.
func (w *Writer) mkdir(parent, name string) error {
	found, err := w.lookup(parent, name)
	if err != nil {
		return err
	}
	if found != nil {
		if !found.IsDir() {
			return fmt.Errorf("%s is a file", path.Join(parent, name))
		}
		return nil
	}
	if err := w.room(path.Join(parent, name), 1); err != nil {
		return err
	}
	if err := w.fs.Mkdir(path.Join(parent, name)); err != nil {
		return err
	}
	if err := w.distinct(parent, name); err != nil {
		return err
	}
	if parent == "." {
		return w.pointToRoot(name)
	}
	return nil
}

// pointToRoot mends the ".." of a directory in the root: it must name cluster 0 there, and the
// library names 2 (Microsoft FAT specification, section 6.5).
func (w *Writer) pointToRoot(dir string) error {
	first, err := w.firstCluster(dir)
	if err != nil {
		return err
	}
	const dotdot, clusterHigh, clusterLow = 32, 20, 26
	entry := w.geo.DataStart + int64(first-2)*w.geo.Cluster + dotdot
	name := make([]byte, 11)
	if _, err := w.store.ReadAt(name, entry); err != nil {
		return err
	}
	if !bytes.Equal(name, []byte("..         ")) {
		return fmt.Errorf("directory %s has no entry for its parent", dir)
	}
	for _, field := range []int64{clusterHigh, clusterLow} {
		if _, err := w.store.WriteAt([]byte{0, 0}, entry+field); err != nil {
			return err
		}
	}
	return nil
}

// firstCluster is where a file or directory begins.
func (w *Writer) firstCluster(name string) (uint32, error) {
	file, err := w.fs.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	chained, ok := file.(interface{ GetClusterChain() ([]uint32, error) })
	if !ok {
		return 0, fmt.Errorf("the clusters of %s cannot be read", name)
	}
	chain, err := chained.GetClusterChain()
	if err != nil {
		return 0, err
	}
	return chain[0], nil
}

// WriteFile makes a file of exactly size bytes, at least one, in a directory that exists. A file of
// that name must not exist: names differ by more than case.
func (w *Writer) WriteFile(name string, size int64, r io.Reader) error {
	if err := w.cause(w.writeFile(name, size, r)); err != nil {
		return fmt.Errorf("writing %s to the EFI system partition: %w", name, err)
	}
	return nil
}

func (w *Writer) writeFile(name string, size int64, r io.Reader) error {
	names, err := splitPath(name)
	if err != nil {
		return err
	}
	// The library gives even an empty file a cluster, which checkers call an error.
	if size <= 0 || size > 1<<32-1 {
		return fmt.Errorf("a file of %d bytes is not possible on FAT", size)
	}
	dir, base := path.Join(append([]string{"."}, names[:len(names)-1]...)...), names[len(names)-1]
	found, err := w.lookup(dir, base)
	if err != nil {
		return err
	}
	if found != nil {
		return fs.ErrExist
	}
	full := path.Join(dir, base)
	if err := w.room(full, (size+w.geo.Cluster-1)/w.geo.Cluster); err != nil {
		return err
	}
	sum, err := w.fill(full, size, r)
	if err != nil {
		return err
	}
	w.written = append(w.written, content{full, size, sum})
	return w.distinct(dir, base)
}

// fill creates a file and streams its content.
func (w *Writer) fill(name string, size int64, r io.Reader) (sum [sha256.Size]byte, err error) {
	file, err := w.fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	// Writing the last byte first allocates the whole chain at once; otherwise every chunk would
	// search and rewrite the table.
	if err := writeEnd(file, size); err != nil {
		return sum, err
	}
	hash := sha256.New()
	n, err := io.CopyBuffer(onlyWriter{file}, onlyReader{io.TeeReader(io.LimitReader(r, size), hash)}, make([]byte, min(chunk, size)))
	if err != nil {
		return sum, err
	}
	if n != size {
		return sum, fmt.Errorf("%d bytes of content, %d were announced: %w", n, size, io.ErrUnexpectedEOF)
	}
	if extra, _ := r.Read(make([]byte, 1)); extra > 0 {
		return sum, fmt.Errorf("more content than the %d bytes announced", size)
	}
	copy(sum[:], hash.Sum(nil))
	return sum, nil
}

// writeEnd writes one byte at a file's last position and goes back to the start.
func writeEnd(file io.WriteSeeker, size int64) error {
	if _, err := file.Seek(size-1, io.SeekStart); err != nil {
		return err
	}
	if _, err := file.Write([]byte{0}); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// onlyWriter and onlyReader hide optional methods, so that io.CopyBuffer uses the buffer it is
// given.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// Finish completes the volume and writes it out. It fails when two names were found to collide.
func (w *Writer) Finish() error {
	if w.broken != nil {
		return w.broken
	}
	w.writeInfo()
	return w.store.flush()
}

// Verify checks a finished volume by the reader, which shares no code with the writer, and compares
// every file with the content that was handed in.
func (w *Writer) Verify() error {
	v, err := Open(w.store, w.o.Size)
	if err != nil {
		return err
	}
	problems := v.Structure()
	v.Walk(func(where, what string) { problems = append(problems, where+": "+what) })
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	buf := make([]byte, chunk)
	for _, want := range w.written {
		file, ok := v.Find(want.path)
		if !ok {
			return fmt.Errorf("%s: it is missing on the disk", want.path)
		}
		hash := sha256.New()
		if _, err := io.CopyBuffer(hash, onlyReader{v.Reader(file)}, buf); err != nil {
			return fmt.Errorf("%s: %w", want.path, err)
		}
		if file.Size != want.size || !bytes.Equal(hash.Sum(nil), want.sum[:]) {
			return fmt.Errorf("%s: the content on the disk differs from the content that was written", want.path)
		}
	}
	return nil
}
