package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk"
)

// qcow2Magic begins a qcow2 image (QEMU, docs/interop/qcow2.txt).
const qcow2Magic = "QFI\xfb"

// source is the disk, open for reading. While it is, installers and udev are kept away by a shared
// lock.
type source struct {
	file   *os.File // the disk as a machine sees it
	size   int64    // bytes
	sector int      // bytes
	format string
	image  string // path of the qcow2, or ""
	lock   *os.File

	backing []string     // files that a qcow2 may refer to
	tempDir string       // where a qcow2 is unpacked
	release func() error // releases the program that serves file; nil: there is none
}

// openSource opens path: a block device, a qcow2, or a raw file. Of a qcow2 nothing but the
// beginning can be read before it is loaded.
func openSource(ctx context.Context, path string, o Options) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	flags := os.O_RDONLY
	switch {
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		flags |= unix.O_EXCL // fails while a file system on it is mounted
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("opening the disk %s: it is neither a block device nor a regular file", path)
	}
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, inUse(path, "mounted, or claimed by another program or device", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	s := &source{file: file, lock: file, tempDir: o.TempDir, backing: o.BackingFiles}
	if err := s.prepare(ctx, path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func inUse(path, why string, cause error) error {
	return &disk.InUseError{Path: path, Err: cause, Uses: []disk.Use{{What: path, Why: why,
		Remedy: "a disk that changes while it is read cannot be judged; end that use first"}}}
}

func (s *source) prepare(ctx context.Context, path string) error {
	if err := s.claim(path); err != nil {
		return err
	}
	head := make([]byte, 32)
	if n, err := s.file.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && n >= 0) {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	switch {
	case isBlock(s.file):
		s.format = BlockDevice
	case string(head[:4]) == qcow2Magic:
		s.format, s.image = QCOW2, path
		return s.openQcow2(ctx)
	case foreignFormat(head) != "":
		return &FormatError{Path: path, Format: foreignFormat(head)}
	default:
		s.format = Raw
	}
	return s.measure()
}

// foreignFormat recognises a container of a disk that is none of those that are read, by how it
// begins.
func foreignFormat(head []byte) string {
	for magic, name := range map[string]string{
		"KDMV": "VMDK", "# Disk DescriptorFile": "VMDK", "COWD": "VMDK", "vhdxfile": "VHDX", "conectix": "VHD",
		"<<< ": "VDI", "QED\x00": "QED", "WithoutFreeSpace": "Parallels", "WithouFreSpacExt": "Parallels",
	} {
		if strings.HasPrefix(string(head), magic) {
			return name
		}
	}
	return ""
}

// FormatError refuses a disk in a container that is not read.
type FormatError struct {
	Path   string
	Format string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s is a disk of format %s; raw and qcow2 are read: convert it with qemu-img convert", e.Path, e.Format)
}

// claim refuses a disk that another program is writing to.
func (s *source) claim(path string) error {
	err := unix.Flock(int(s.file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return inUse(path, "locked by another program, such as an installer", err)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	if isBlock(s.file) {
		return nil
	}
	if err := disk.LockImage(s.file, disk.ImageReader); err != nil {
		return err
	}
	return s.checkLoops(path)
}

// checkLoops refuses a file that a writable loop device lies over.
func (s *source) checkLoops(path string) error {
	mine, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	loops, err := block.Live().Loops()
	if err != nil {
		return err
	}
	for _, loop := range loops {
		info, err := os.Stat(loop.Backing)
		if err != nil || !os.SameFile(info, mine) {
			continue // another namespace's path, or another file
		}
		if ro, err := block.NumericAttribute(loop.Dir, "ro"); err == nil && ro == 0 {
			return inUse(path, "a loop device lies over it for writing: /dev/"+loop.Name, nil)
		}
	}
	return nil
}

// measure reads size and sector size. A file has the latter in the place of its partition table.
func (s *source) measure() (err error) {
	if s.size, err = s.file.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("measuring %s: %w", s.file.Name(), err)
	}
	if isBlock(s.file) {
		if s.sector, err = unix.IoctlGetInt(int(s.file.Fd()), unix.BLKSSZGET); err != nil {
			return fmt.Errorf("asking %s for its sector size: %w", s.file.Name(), err)
		}
		return nil
	}
	s.sector = sectorSize(s.file, s.size)
	return nil
}

// sectorSize returns the sector size of a disk in a file, on which the place of its partition table
// depends.
func sectorSize(r io.ReaderAt, size int64) int {
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{sector, size - sector} {
			mark := make([]byte, len(disk.GPTSignature))
			if _, err := r.ReadAt(mark, max(at, 0)); err == nil && string(mark) == disk.GPTSignature {
				return int(sector)
			}
		}
	}
	return 512
}

// Close gives the disk back.
func (s *source) Close() error {
	err := s.file.Close()
	if s.release != nil {
		err = errors.Join(err, s.release())
	}
	if s.lock != s.file {
		err = errors.Join(err, s.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("closing the disk: %w", err)
	}
	return nil
}

func isBlock(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
}

// checkImage checks the container of a disk that is not raw.
func checkImage(ctx context.Context, f *findings, s *source) error {
	if s.image == "" {
		f.notApplicable("%s, %d bytes", s.format, s.size)
		return nil
	}
	if err := s.checkQcow2(ctx); err != nil {
		f.faultWith("qemu-img check -r may repair it", f.path, "%v", err)
	}
	f.say("qcow2, %d bytes", s.size)
	return nil
}
