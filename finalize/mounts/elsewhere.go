package mounts

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// UnmountIn unmounts mounts of another mount namespace, in this order, each with
// one umount2 by name in its directory. The namespace needs no process in it.
func UnmountIn(ctx context.Context, ns Namespace, list []Mount) error {
	if ns.ID == 0 {
		return fmt.Errorf("unmounting in namespace mnt:[%d]: this kernel does not tell namespaces apart safely (Linux 6.11 needed); enter it with nsenter -m", ns.Inode)
	}
	found := false
	err := EachNamespace(ctx, func(fd int) error {
		id, _, err := identityOf(fd)
		if err != nil || id != ns.ID {
			return err
		}
		found = true
		return onDyingThread(func() error { return unmountInside(fd, list) })
	})
	if err == nil && !found {
		return fmt.Errorf("unmounting in namespace mnt:[%d]: it has ended", ns.Inode)
	}
	return err
}

// unmountInside takes the calling thread into a namespace and back, so that it
// keeps neither the namespace nor a directory of it while it ends.
func unmountInside(fd int, list []Mount) (err error) {
	home, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the own mount namespace: %w", err)
	}
	defer unix.Close(home)
	if err := joinNamespace(fd); err != nil {
		return err
	}
	defer func() {
		if back := unix.Setns(home, unix.CLONE_NEWNS); back != nil {
			err = errors.Join(err, fmt.Errorf("leaving the mount namespace: %w", back))
		}
	}()
	for _, m := range list {
		if err := Unmount(m); err != nil {
			return err
		}
	}
	return nil
}

// onDyingThread runs f on a thread that ends afterwards, as one must whose
// working directory or namespace was changed. The process's first thread never
// ends: when the goroutine finds itself on it, it keeps it busy while another
// one runs f. A child process that was started on the thread with Pdeathsig set
// gets that signal when the thread ends.
func onDyingThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks, so that the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread() // nothing was changed on this one
			result <- onDyingThread(f)
			return
		}
		result <- f()
	}()
	return <-result
}
