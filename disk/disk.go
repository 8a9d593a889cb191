package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// defaultSector is the logical sector size of a raw file, in bytes.
const defaultSector = 512

// Disk is a whole disk, claimed: a block device opened exclusively, or a raw file. The claim lasts
// until [Disk.Close].
type Disk struct {
	file    *os.File
	subject subject
	size    int64
	sector  int
	model   string
	veils   veils
	kernel  partitionList
	loops   *loopSet
}

// Option is an option of [Open].
type Option func(*Disk)

// NodeDir names a private directory (on a file system that allows device nodes) in which a node is
// made for a loop device that has none in /dev, as in a container whose /dev is static.
func NodeDir(dir string) Option { return func(d *Disk) { d.loops.nodeDir = dir } }

// Open claims a whole disk: a block device or a raw file that exists already with the wanted size.
// It returns an [*InUseError] for a disk that is mounted, used as swap, held by another device or
// program, locked or read-only, and a [*RefusedError] for a path that cannot be a disk. It writes
// nothing.
func Open(path string, options ...Option) (*Disk, error) {
	return open(liveHost(), path, options...)
}

func open(h host, path string, options ...Option) (*Disk, error) {
	s, err := h.lookAt(path)
	if err != nil {
		return nil, err
	}
	uses, err := h.survey(s)
	if err != nil {
		return nil, err
	}
	if len(uses) > 0 {
		return nil, &InUseError{Path: s.path, Uses: uses}
	}
	f, err := h.claim(s)
	if err != nil {
		return nil, err
	}
	d := &Disk{file: f, subject: s, sector: defaultSector, kernel: partitionList{f, h, s.nodes},
		loops: &loopSet{file: f, host: h, devices: map[*Device]struct{}{}}}
	for _, o := range options {
		o(d)
	}
	if err := d.measure(); err != nil {
		f.Close()
		return nil, err
	}
	d.loops.sector = d.sector
	return d, nil
}

// measure reads the size and the sector size, and checks that the disk can hold a partition table.
func (d *Disk) measure() error {
	var err error
	if d.size, err = d.file.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("measuring %s: %w", d.Path(), err)
	}
	d.model = "raw file"
	if d.IsBlock() {
		d.model = d.subject.nodes[0].model()
		if d.sector, err = unix.IoctlGetInt(int(d.file.Fd()), unix.BLKSSZGET); err != nil {
			return fmt.Errorf("asking %s for its sector size: %w", d.Path(), err)
		}
	}
	if d.sector != 512 && d.sector != 4096 {
		return &RefusedError{d.Path(), fmt.Sprintf("its sector size is %d bytes; 512 and 4096 are supported", d.sector)}
	}
	if d.size == 0 {
		return &RefusedError{d.Path(), "its size is 0; is there a medium, or was the file not given a size (truncate -s 10G)?"}
	}
	if d.size%int64(d.sector) != 0 {
		return &RefusedError{d.Path(), fmt.Sprintf("its size of %d bytes is no multiple of the sector size %d (truncate -s %%%d)",
			d.size, d.sector, d.sector)}
	}
	return nil
}

// Size returns the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// SectorSize returns the logical sector size in bytes.
func (d *Disk) SectorSize() int { return d.sector }

// Path returns the path of the device or file, with symbolic links resolved.
func (d *Disk) Path() string { return d.subject.path }

// IsBlock reports whether the disk is a block device; else it is a raw file.
func (d *Disk) IsBlock() bool { return len(d.subject.nodes) > 0 }

// Model returns the name that the device has for itself, by which a person recognises it; "raw
// file" for a file.
func (d *Disk) Model() string { return d.model }

// within checks that a range lies on the disk.
func (d *Disk) within(off, n int64) error {
	if off < 0 || n < 0 || off > d.size-n {
		return fmt.Errorf("range %d+%d is outside %s of %d bytes", off, n, d.Path(), d.size)
	}
	return nil
}

// ReadAt reads from the disk; the whole range must lie on it.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.within(off, int64(len(p))); err != nil {
		return 0, fmt.Errorf("reading: %w", err)
	}
	n, err := d.file.ReadAt(p, off)
	d.veils.show(p[:n], off)
	return n, err
}

// WriteAt writes to the disk; the whole range must lie on it. It is for data outside of file
// systems, such as BIOS boot code.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.within(off, int64(len(p))); err != nil {
		return 0, fmt.Errorf("writing: %w", err)
	}
	return d.file.WriteAt(d.veils.hide(p, off), off)
}

// Sync makes all writes through the disk durable.
func (d *Disk) Sync() error { return flush(d.file) }

// flush makes the writes to a disk durable.
func flush(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing %s: %w", f.Name(), err)
	}
	return nil
}

// Close detaches the devices that are still attached, flushes, and gives up the claim. A second
// Close does nothing.
func (d *Disk) Close() error {
	var errs []error
	for _, v := range d.loops.attached() {
		errs = append(errs, v.Detach())
	}
	if err := d.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		errs = append(errs, err)
	}
	if err := d.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		errs = append(errs, fmt.Errorf("closing %s: %w", d.Path(), err))
	}
	return errors.Join(errs...)
}
