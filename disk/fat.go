package disk

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

	"installer/disk/fat"
)

// chunk is how much of a file is read and written at a time, in bytes.
const chunk = 4 * mib

// FAT is a FAT32 file system being made on a partition, written without the kernel, which need not
// have the driver. It is not safe for concurrent use. Nothing of it is valid until [FAT.Close].
type FAT struct {
	store   *fatStore
	fs      *fat32.FileSystem
	part    Partition
	geo     fatGeometry
	written []fatFile
	broken  error // the error after which the file system cannot be completed
	closed  bool
}

// fatFile is a file as the caller gave it, to be compared with the content of the disk in the end.
type fatFile struct {
	path string
	size int64
	sum  [sha256.Size]byte
}

// NoSpaceError means that a file does not fit the FAT file system.
type NoSpaceError struct {
	Path string
	Need int64 // bytes, in whole clusters
	Free int64 // bytes
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no space for %s on the EFI system partition: %d bytes are needed, %d are free; make it larger", e.Path, e.Need, e.Free)
}

// FAT makes a FAT32 file system on a partition, with an upper-case volume label of at most 11
// characters. The volume's serial number is the start of the PARTUUID.
func (d *Disk) FAT(p Partition, label string) (*FAT, error) {
	if err := d.within(p.Start, p.Size); err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q: %w", p.Name, err)
	}
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	geo := fatGeometryFor(p.Size, d.sector)
	if geo.clusters < fat32MinCluster {
		return nil, fmt.Errorf("making a FAT file system on %q: %d MiB are too small for FAT32; %d MiB are needed",
			p.Name, p.Size/mib, smallestESP(d.sector)/mib)
	}
	store := newFATStore(d, p, geo.dataStart)
	fsys, err := fat32.Create(store, p.Size, 0, int64(d.sector), label, true)
	if err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q: %w", p.Name, err)
	}
	f := &FAT{store: store, fs: fsys, part: p, geo: geo}
	if err := f.finishBootSector(); err != nil {
		return nil, fmt.Errorf("making a FAT file system on %q: %w", p.Name, err)
	}
	return f, nil
}

// finishBootSector checks the geometry that the writer chose and sets what it leaves out: the
// sectors before the partition and the serial number, in the boot sector and its copy (Microsoft
// FAT specification, BPB_HiddSec and BS_VolID).
func (f *FAT) finishBootSector() error {
	sector := int64(f.store.disk.sector)
	b := f.store.front
	if got := geometryOf(b); got != f.geo {
		return fmt.Errorf("its geometry is %+v, expected %+v", got, f.geo)
	}
	serial, err := serialOf(f.part.UUID)
	if err != nil {
		return err
	}
	for _, at := range []int64{0, backupBootSector * sector} {
		binary.LittleEndian.PutUint32(b[at+28:], uint32(min(f.part.Start/sector, 0xffffffff)))
		binary.LittleEndian.PutUint32(b[at+67:], serial)
	}
	return nil
}

// MkdirAll makes a directory and those above it. Directories that exist are left as they are.
func (f *FAT) MkdirAll(dir string) error {
	names, err := fatPath(dir)
	if err != nil {
		return fmt.Errorf("making directory %s on the EFI system partition: %w", dir, err)
	}
	at := "."
	for _, name := range names {
		if err := f.cause(f.mkdir(at, name)); err != nil {
			return fmt.Errorf("making directory %s on the EFI system partition: %w", dir, err)
		}
		at = path.Join(at, name)
	}
	return nil
}

// cause returns the first failed write, else err: the FAT library ignores some failed writes.
func (f *FAT) cause(err error) error {
	if f.store.failed != nil {
		return f.store.failed
	}
	return err
}

// mkdir makes one directory unless it exists.
func (f *FAT) mkdir(parent, name string) error {
	found, err := f.lookup(parent, name)
	if err != nil {
		return err
	}
	if found != nil {
		if !found.IsDir() {
			return fmt.Errorf("%s is a file", path.Join(parent, name))
		}
		return nil
	}
	if err := f.room(path.Join(parent, name), 1); err != nil {
		return err
	}
	if err := f.fs.Mkdir(path.Join(parent, name)); err != nil {
		return err
	}
	if err := f.distinct(parent, name); err != nil {
		return err
	}
	if parent == "." {
		return f.pointToRoot(name)
	}
	return nil
}

// pointToRoot mends the ".." of a directory in the root: it must name cluster 0 there, and the
// writer names 2 (Microsoft FAT specification, section 6.5).
func (f *FAT) pointToRoot(dir string) error {
	first, err := f.firstCluster(dir)
	if err != nil {
		return err
	}
	const dotdot, clusterHigh, clusterLow = 32, 20, 26
	entry := f.geo.dataStart + int64(first-2)*f.geo.cluster + dotdot
	name := make([]byte, 11)
	if _, err := f.store.ReadAt(name, entry); err != nil {
		return err
	}
	if !bytes.Equal(name, []byte("..         ")) {
		return fmt.Errorf("directory %s has no entry for its parent", dir)
	}
	for _, field := range []int64{clusterHigh, clusterLow} {
		if _, err := f.store.WriteAt([]byte{0, 0}, entry+field); err != nil {
			return err
		}
	}
	return nil
}

// firstCluster is where a file or directory begins.
func (f *FAT) firstCluster(name string) (uint32, error) {
	file, err := f.fs.OpenFile(name, os.O_RDONLY)
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
func (f *FAT) WriteFile(name string, size int64, r io.Reader) error {
	if err := f.cause(f.writeFile(name, size, r)); err != nil {
		return fmt.Errorf("writing %s to the EFI system partition: %w", name, err)
	}
	return nil
}

func (f *FAT) writeFile(name string, size int64, r io.Reader) error {
	names, err := fatPath(name)
	if err != nil {
		return err
	}
	// The writer gives even an empty file a cluster, which checkers call an error.
	if size <= 0 || size > 1<<32-1 {
		return fmt.Errorf("a file of %d bytes is not possible on FAT", size)
	}
	dir, base := path.Join(append([]string{"."}, names[:len(names)-1]...)...), names[len(names)-1]
	found, err := f.lookup(dir, base)
	if err != nil {
		return err
	}
	if found != nil {
		return fs.ErrExist
	}
	full := path.Join(dir, base)
	if err := f.room(full, (size+f.geo.cluster-1)/f.geo.cluster); err != nil {
		return err
	}
	sum, err := f.fill(full, size, r)
	if err != nil {
		return err
	}
	f.written = append(f.written, fatFile{full, size, sum})
	return f.distinct(dir, base)
}

// fill creates a file and streams its content.
func (f *FAT) fill(name string, size int64, r io.Reader) (sum [sha256.Size]byte, err error) {
	file, err := f.fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
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

// Close completes the file system and writes it out, flushes the disk, and compares every file on
// it with what was handed in. It fails when two names were found to collide. A second Close does
// nothing.
func (f *FAT) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	if f.broken != nil {
		return fmt.Errorf("the FAT file system on %q was not completed: %w", f.part.Name, f.broken)
	}
	f.writeInfo()
	if err := f.store.flush(); err != nil {
		return fmt.Errorf("writing the FAT file system on %q: %w", f.part.Name, err)
	}
	if err := f.store.disk.Sync(); err != nil {
		return err
	}
	if err := f.verify(); err != nil {
		return fmt.Errorf("reading back the FAT file system on %q: %w", f.part.Name, err)
	}
	return nil
}

// Discard gives the file system up; the part of it on the disk is no file system. Close then does
// nothing.
func (f *FAT) Discard() error {
	f.closed = true
	return nil
}

// Withhold keeps the boot sector, by which firmware knows the file system, from the disk until
// [Disk.Reveal], as the last of the ranges so far, and its copy before it.
func (f *FAT) Withhold() error {
	d, sector := f.store.disk, int64(f.store.disk.sector)
	if err := d.Withhold(f.part.Start+backupBootSector*sector, sector); err != nil {
		return err
	}
	return d.Withhold(f.part.Start, sector)
}

// verify checks the file system on the disk by package fat, which shares no code with the writer,
// and compares every file.
func (f *FAT) verify() error {
	if err := dropCache(f.store.disk.file, f.part.Start, f.part.Size); err != nil {
		return err
	}
	v, err := fat.Open(f.store, f.part.Size)
	if err != nil {
		return err
	}
	problems := v.Structure()
	v.Walk(func(where, what string) { problems = append(problems, where+": "+what) })
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	buf := make([]byte, chunk)
	for _, want := range f.written {
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
