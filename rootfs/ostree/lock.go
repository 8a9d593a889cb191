package ostree

import (
	"errors"
	"fmt"
	"io"
	"os"

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
	name := repoPath + "/.lock"
	held := &heldLock{}
	if held.file, err = r.openLockFile(name); err != nil {
		return nil, err
	}
	if err := setLock(held.file.fd, exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), held.file.close())
	}
	held.released = r.ledger.Opened("lock", name)
	r.lockMu.Lock()
	r.locks[held] = struct{}{}
	r.lockMu.Unlock()
	return func() error { return r.unlock(held) }, nil
}

// openLockFile opens the lock file, made with mode 0640 at first use.
func (r *Repo) openLockFile(name string) (handle, error) {
	h, err := openAt(r.ledger, name, r.dir.fd, ".lock", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o640)
	if errors.Is(err, unix.EEXIST) {
		return openAt(r.ledger, name, r.dir.fd, ".lock", unix.O_RDWR, 0)
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

func (r *Repo) unlock(held *heldLock) error {
	r.lockMu.Lock()
	_, ours := r.locks[held]
	delete(r.locks, held)
	r.lockMu.Unlock()
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

func (r *Repo) releaseLocks() error {
	r.lockMu.Lock()
	defer r.lockMu.Unlock()
	var errs []error
	for held := range r.locks {
		errs = append(errs, held.close())
		delete(r.locks, held)
	}
	return errors.Join(errs...)
}
