package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ImageAccess is the use of a disk image that [LockImage] announces to other programs.
type ImageAccess int

// The two uses. Neither goes with a writer elsewhere; a writer goes with no reader either.
const (
	ImageReader ImageAccess = iota
	ImageWriter
)

// QEMU's protocol of locks on disk images (QEMU, block/file-posix.c): a program holds a read lock
// on one byte from 100 on for each permission that it uses, and on one byte from 200 on for each
// permission that it denies to others.
const (
	qemuUsed     = 100
	qemuDenied   = 200
	qemuRead     = 0 // consistent read
	qemuWrite    = 1
	qemuUnchange = 2 // rewriting the same content
	qemuResize   = 3
)

// permissions are those that an access uses, and those that it denies.
func (a ImageAccess) permissions() (used, denied []int64) {
	if a == ImageReader {
		return []int64{qemuRead}, []int64{qemuWrite, qemuResize}
	}
	all := []int64{qemuRead, qemuWrite, qemuUnchange, qemuResize}
	return all, all
}

// LockImage locks a file as virtual machine monitors lock their disk images, and refuses with an
// [*InUseError] one that another program has locked against the access. The locks last as long as
// the open file, in a loop device laid over it too.
func LockImage(f *os.File, access ImageAccess) error {
	return liveHost().lockImage(f, f.Name(), access)
}

func (h host) lockImage(f *os.File, path string, access ImageAccess) error {
	used, denied := access.permissions()
	// As QEMU does: first the own locks, then a look at those of others. Of two that begin at the
	// same moment at least one sees the other.
	for _, at := range append(offsets(qemuUsed, used), offsets(qemuDenied, denied)...) {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return h.imageInUse(f, path)
		}
		if err != nil {
			return fmt.Errorf("locking %s: %w", path, err)
		}
	}
	against := append(offsets(qemuDenied, used), offsets(qemuUsed, denied)...)
	if access == ImageWriter {
		against = []int64{0} // also locks that follow another protocol
	}
	for _, at := range against {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if access == ImageWriter {
			lock.Len = 0 // the whole file
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
			return fmt.Errorf("asking for locks on %s: %w", path, err)
		}
		if lock.Type != unix.F_UNLCK {
			return h.imageInUse(f, path)
		}
	}
	return nil
}

func offsets(base int64, permissions []int64) []int64 {
	list := make([]int64, len(permissions))
	for i, p := range permissions {
		list[i] = base + p
	}
	return list
}

func (h host) imageInUse(f *os.File, path string) error {
	var st unix.Stat_t
	who := anotherProgram
	if unix.Fstat(int(f.Fd()), &st) == nil {
		who = h.locker(st, "OFDLCK", "POSIX")
	}
	return &InUseError{Path: path, Uses: []Use{{Kind: Locked, What: path,
		Why: "a range of it is locked by " + who, Remedy: "stop the virtual machine or program that uses the file"}}}
}
