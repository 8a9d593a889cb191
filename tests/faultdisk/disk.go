package faultdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// fileName is that of the disk in its file system.
const fileName = "disk.raw"

// Kind is a kind of request to the disk.
type Kind int

// The kinds of requests. Flush is fsync(2), or the flush of a loop device over the file.
const (
	Read Kind = iota
	Write
	Zero // a hole is punched, or a range zeroed
	Flush
)

// Op is one request.
type Op struct {
	Kind     Kind
	N        int   // how many of this kind came before
	Off, Len int64 // bytes; 0 for a flush
}

// Fault decides whether a request fails, and how; 0 lets it through. It is called for one request
// at a time.
type Fault func(Op) unix.Errno

// Disk is a raw disk file whose storage can fail.
type Disk struct {
	size   int64
	dir    string
	device int
	done   chan error

	mu     sync.Mutex // guards the fields below
	store  *os.File
	fault  Fault
	counts [Flush + 1]int
	failed int
	log    *Log
}

// New makes a disk of size bytes, all zeros, on a file system mounted on dir/mount; its content
// lies in dir/store. It needs root and /dev/fuse. Close it.
func New(dir string, size int64) (*Disk, error) {
	d := &Disk{size: size, dir: filepath.Join(dir, "mount"), done: make(chan error, 1)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if d.store, err = os.OpenFile(filepath.Join(dir, "store"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := d.store.Truncate(size); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	if d.device, err = mountFUSE(d.dir); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	go func() { d.done <- d.serve() }()
	return d, nil
}

// Path is the path of the disk file.
func (d *Disk) Path() string { return filepath.Join(d.dir, fileName) }

// Open opens the disk file in the process that serves it. The os package would hand the descriptor
// to epoll, which asks the file system and, in the Go runtime, lets nobody else run meanwhile: who
// serves could not answer.
func (d *Disk) Open() (*os.File, error) {
	fd, err := unix.Open(d.Path(), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.Path(), Err: err}
	}
	return os.NewFile(uintptr(fd), d.Path()), nil
}

// SetFault decides from now on; nil lets everything through.
func (d *Disk) SetFault(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Counts returns the number of requests of each kind, and of those that were made to fail.
func (d *Disk) Counts() (byKind [Flush + 1]int, failed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts, d.failed
}

// Record keeps everything that changes the disk from now on. The disk must be all zeros.
func (d *Disk) Record() (*Log, error) {
	data, err := os.OpenFile(filepath.Join(filepath.Dir(d.dir), "log"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = &Log{data: data, size: d.size}
	return d.log, nil
}

// Close unmounts the file system and ends its service. It fails while the file is in use.
func (d *Disk) Close() error {
	if err := unix.Unmount(d.dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", d.dir, err)
	}
	err := <-d.done
	if d.log != nil {
		err = errors.Join(err, d.log.data.Close())
	}
	return errors.Join(err, unix.Close(d.device), d.store.Close())
}

// do carries a request out, or lets it fail.
func (d *Disk) do(op Op, data []byte) unix.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	op.N = d.counts[op.Kind]
	d.counts[op.Kind]++
	if d.fault != nil {
		if errno := d.fault(op); errno != 0 {
			d.failed++
			return errno
		}
	}
	err := apply(d.store, op, data)
	if err == nil && d.log != nil {
		err = d.log.add(op, data)
	}
	return errnoOf(err)
}

// apply carries out a request on a file.
func apply(f *os.File, op Op, data []byte) error {
	var err error
	switch op.Kind {
	case Read:
		_, err = f.ReadAt(data, op.Off)
	case Write:
		_, err = f.WriteAt(data, op.Off)
	case Zero:
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Len)
	}
	return err
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if err == nil || errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
