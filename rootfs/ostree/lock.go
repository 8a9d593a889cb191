package ostree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// heldLock is one open file description that carries a lock.
type heldLock struct {
	file     handle
	released func()
}

// Lock takes the repository's lock, the open-file-description lock on .lock that other programs
// honour: shared for writing, exclusive for pruning or when no one else may look. It does not wait:
// held elsewhere it is ErrLocked. The lock belongs to the call, so an exclusive one also excludes
// this process's own. A second unlock, and one after the repository's Close, returns ErrClosed.
func (r *Repo) Lock(exclusive bool) (unlock func() error, err error) {
	if err := r.gate.enter(); err != nil {
		return nil, err
	}
	defer r.gate.leave()
	return r.locks.take(exclusive)
}

// locks is the locks on the repository that this handle holds.
type locks struct {
	folders *folders
	mu      sync.Mutex
	held    map[*heldLock]struct{}
}

func (l *locks) take(exclusive bool) (unlock func() error, err error) {
	name := repoPath + "/.lock"
	held := &heldLock{}
	if held.file, err = l.openFile(name); err != nil {
		return nil, err
	}
	if err := setLock(held.file.fd, exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), held.file.close())
	}
	held.released = l.folders.ledger.Opened("lock", name)
	l.mu.Lock()
	l.held[held] = struct{}{}
	l.mu.Unlock()
	return func() error { return l.drop(held) }, nil
}

// openFile opens the lock file, made with mode 0640 at first use.
func (l *locks) openFile(name string) (handle, error) {
	h, err := openAt(l.folders.ledger, name, l.folders.repo.fd, ".lock", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o640)
	if errors.Is(err, unix.EEXIST) {
		return openAt(l.folders.ledger, name, l.folders.repo.fd, ".lock", unix.O_RDWR, 0)
	}
	if err != nil {
		return h, err
	}
	if err := unix.Fchmod(h.fd, 0o640); err != nil {
		return h, errors.Join(&os.PathError{Op: "chmod", Path: name, Err: err}, h.close())
	}
	return h, nil
}

func setLock(fd int, exclusive bool) error {
	kind := int16(unix.F_RDLCK)
	if exclusive {
		kind = unix.F_WRLCK
	}
	lock := unix.Flock_t{Type: kind, Whence: io.SeekStart}
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
	if err == unix.EAGAIN || err == unix.EACCES {
		return ErrLocked
	}
	return err
}

func (l *locks) drop(held *heldLock) error {
	l.mu.Lock()
	_, ours := l.held[held]
	delete(l.held, held)
	l.mu.Unlock()
	if !ours {
		return fmt.Errorf("unlocking %s: %w", repoPath, ErrClosed)
	}
	return held.close()
}

// close drops the lock with the last descriptor of its description.
func (h *heldLock) close() error {
	err := h.file.close()
	h.released()
	return err
}

func (l *locks) dropAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for held := range l.held {
		errs = append(errs, held.close())
		delete(l.held, held)
	}
	return errors.Join(errs...)
}
