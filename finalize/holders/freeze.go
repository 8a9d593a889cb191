package holders

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// Requests of linux/fs.h that golang.org/x/sys does not carry; the same on all
// architectures but mips, powerpc and sparc.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// freezeLimit bounds how long a file system stays frozen, whatever happens to
// this program's threads: frozen, every writer hangs beyond the reach of signals.
const freezeLimit = 10 * time.Second

// FreezeThaw freezes the file system of dir and thaws it at once. EBUSY means
// that somebody else's freeze is in force, under which an unmount would leave the
// super block alive for good; ENOTTY or EOPNOTSUPP that it cannot freeze.
//
// A freeze outlives the process that is killed in it: as little as can be lies
// between the two calls, and both are made on one thread.
func FreezeThaw(dir *os.File) error { return freezeThaw(dir, freezeLimit, func() {}) }

// freezeThaw thaws also when what lies between panics, and from a watchdog when
// it does not end within the limit.
func freezeThaw(dir *os.File, limit time.Duration, between func()) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd := dir.Fd()
	thaw := sync.OnceValue(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, fiThaw, 0); errno != 0 {
			return fmt.Errorf("thawing (try fsfreeze --unfreeze): %w", errno)
		}
		return nil
	})
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, fiFreeze, 0); errno != 0 {
		return errno
	}
	defer func() { err = thaw() }()
	watchdog := time.AfterFunc(limit, func() { _ = thaw() }) // the same error is returned below
	defer watchdog.Stop()
	between()
	return nil
}

// IsFrozen says whether somebody has frozen the file system of m, by trying. The
// kernel shows it in no other way.
func IsFrozen(m mounts.Mount) (bool, error) {
	dir, err := openRoot(m)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return isFrozen(dir)
}

func openRoot(m mounts.Mount) (*os.File, error) {
	dir, err := os.OpenFile(m.Point, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the root of the file system: %w", err)
	}
	return dir, nil
}

func isFrozen(dir *os.File) (bool, error) {
	switch err := FreezeThaw(dir); {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return false, nil
	default:
		return false, fmt.Errorf("freezing and thawing %s: %w", dir.Name(), err)
	}
}

// freezeTrial is IsFrozen, which takes as long as a thousand processes do and does
// nothing but wait all the while, beside the look at the processes.
type freezeTrial struct {
	begun   bool
	fd      int // what it is made through; closed at the end
	ask     func() (bool, error)
	pending atomic.Bool // the next free processor is the trial's: it has to thaw
}

// tryFreeze begins a trial, if nobody can be kept waiting by it: when the kernel
// counts no reference to the one mount that there is of the file system.
func (s *scan) tryFreeze(m mounts.Mount) {
	s.trial.ask = sync.OnceValues(func() (bool, error) { return IsFrozen(m) })
	if !mayFreeze(m) || !s.unused(m) {
		return
	}
	dir, err := openRoot(m)
	if err != nil {
		return // asked again when the processes have been looked at, it says why
	}
	s.trial.begun, s.trial.fd = true, int(dir.Fd())
	s.trial.pending.Store(true)
	s.trial.ask = sync.OnceValues(func() (bool, error) {
		defer s.trial.pending.Store(false)
		defer dir.Close()
		return isFrozen(dir)
	})
	go s.trial.ask() // who asks next is told
}

// end waits for a trial that is under way: it must be thawed, and its directory
// closed, before anything else is asked about the mount.
func (f *freezeTrial) end() {
	if f.begun {
		_, _ = f.ask() // told to who asks for it
	}
}

// through says whether an open file is the one that the trial is made through.
func (f *freezeTrial) through(t task, fd int) bool {
	return f.begun && t.pid == os.Getpid() && fd == f.fd
}

// mayFreeze leaves the system's own root alone, and what is on no device.
func mayFreeze(m mounts.Mount) bool { return Stored(m) && m.Point != "/" }

// unused says whether the kernel counts no reference to the only mount of the
// file system, as far as can be told. It is false where the own process could not
// be told from others.
func (s *scan) unused(m mounts.Mount) bool {
	if !s.snapshot.Complete || len(s.held) != len(s.own) {
		return false
	}
	if self, err := readLink(s.proc, "self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return false
	}
	referenced, err := mounts.Referenced(m)
	return err == nil && !referenced
}

// FrozenHolder stands for a freeze that somebody has made and not undone.
func FrozenHolder(m mounts.Mount) Holder {
	return Holder{Class: Frozen, Path: m.Point, Evidence: "FIFREEZE: device or resource busy",
		Remedy: "thaw it: fsfreeze --unfreeze " + m.Point}
}
