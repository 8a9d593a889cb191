package deploy

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
)

// InitSysroot makes an empty file system a physical root: the directories of epoch 1, as `ostree admin init-fs
// --modern` makes them. The repository is made by ostree.Create, before or after. root is not kept.
func InitSysroot(root *os.File) error {
	d := beneath.Of(root, noLedger{})
	if _, exists, err := d.Stat("sysroot"); exists || err != nil {
		// ostree would take itself to be inside of a deployment.
		return errors.Join(errors.New("preparing the root file system: it has a directory /sysroot, which no physical root has"), err)
	}
	if err := unix.Fchmod(d.FD(), 0o755); err != nil {
		return d.Fail("chmod", ".", err)
	}
	for _, name := range []string{"boot", "ostree", "ostree/deploy"} {
		if err := d.MkdirAll(name, 0o755); err != nil {
			return fmt.Errorf("preparing the root file system: %w", err)
		}
	}
	return nil
}

// noLedger serves where no handle outlives the call and the contract hands no ledger in.
type noLedger struct{}

func (noLedger) Opened(string, string) func() { return func() {} }

// lockSysroot takes the lock that ostree's own commands honour: an open file description lock on
// ostree/lock, which is gone when nobody holds it. It does not wait.
func lockSysroot(root *beneath.Dir) (unlock func() error, err error) {
	const name = "ostree/lock"
	fd, closeFD, err := root.Open(name, unix.O_RDWR|unix.O_CREAT, 0o600, beneath.NoLinks)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == unix.EAGAIN || err == nil && st.Nlink == 0 { // no link: the holder before has just given it up
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(root.Fail("lock", name, err), closeFD())
	}
	released := root.Opened("lock", name)
	return func() error {
		// The name goes first: who finds it gone makes and locks another one.
		err := errors.Join(root.Remove(name, false), closeFD())
		released()
		return err
	}, nil
}
