package holders

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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
