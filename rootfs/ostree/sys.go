package ostree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
)

// handle is one descriptor and its entry in the ledger. Plain descriptors spare the registration
// with the runtime's poller that an os.File costs.
type handle struct {
	fd       int
	name     string
	released func()
}

// openAt opens path beneath dirfd and enters it in the ledger as name.
func openAt(l Ledger, name string, dirfd int, path string, flags int, mode uint32) (handle, error) {
	fd, err := retryOpen(dirfd, path, flags, mode)
	if err != nil {
		return handle{fd: -1}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return handle{fd: fd, name: name, released: l.Opened("fd", name)}, nil
}

func retryOpen(dirfd int, path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openDirAt opens an existing directory.
func openDirAt(l Ledger, name string, dirfd int, path string) (handle, error) {
	return openAt(l, name, dirfd, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// close gives the descriptor back. Linux releases it whatever close reports.
func (h *handle) close() error {
	if h.fd < 0 {
		return nil
	}
	err := unix.Close(h.fd)
	h.fd = -1
	h.released()
	if err != nil && err != unix.EINTR {
		return &os.PathError{Op: "close", Path: h.name, Err: err}
	}
	return nil
}

// futimens sets an open file's times of access and modification; see utimensat(2), which takes no
// name for it, as golang.org/x/sys cannot say.
func futimens(fd int, times *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// procPath names an entry beneath a directory descriptor for the few calls that take no descriptor:
// the attributes of symbolic links.
func procPath(dirfd int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
}

// makeDir creates a directory with exactly the given mode, whatever the umask and the parent's
// access control list say. It reports whether the directory is new.
func makeDir(dirfd int, name, full string, mode uint32) (bool, error) {
	err := unix.Mkdirat(dirfd, name, mode)
	if err == unix.EEXIST {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "mkdir", Path: full, Err: err}
	}
	if err := beneath.Plain(dirfd, name, mode); err != nil {
		return true, &os.PathError{Op: "prepare", Path: full, Err: err}
	}
	return true, nil
}

// writeAll writes data at the descriptor's position.
func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("writing %d bytes: %w", len(data), err)
		}
		data = data[n:]
	}
	return nil
}

// readAll reads exactly len(buf) bytes.
func readAll(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("reading: the file ends %d bytes early: %w", len(buf), ErrCorrupt)
		}
		buf = buf[n:]
	}
	return nil
}

// fdReader reads a descriptor as a stream.
type fdReader int

func (r fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(r), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// gate counts the operations under way, so that Close waits for them and refuses new ones. A second
// entry within an operation cannot deadlock.
type gate struct {
	mu     sync.Mutex
	idle   sync.Cond
	active int
	closed bool
}

func (g *gate) init() { g.idle.L = &g.mu }

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("using the repository: %w", ErrClosed)
	}
	g.active++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	if g.active--; g.active == 0 {
		g.idle.Broadcast()
	}
	g.mu.Unlock()
}

// close shuts the gate and returns when the last operation has left.
func (g *gate) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("closing the repository: %w", ErrClosed)
	}
	g.closed = true
	for g.active > 0 {
		g.idle.Wait()
	}
	return nil
}

// isNotExist reports whether a file, or a folder on the way to it, is missing.
func isNotExist(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}
