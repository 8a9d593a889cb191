package mounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// UnmountIn unmounts mounts of another mount namespace, in this order, each with one umount2 by
// name in its directory. Those in cut are made private before. The namespace needs no process in
// it. It returns ErrEnded when the namespace has ended, and its mounts with it.
func UnmountIn(ctx context.Context, ns Namespace, list, cut []Mount) error {
	err := within(ctx, ns, func(int) error {
		for _, m := range cut {
			if err := SetPrivate(m); err != nil {
				return err
			}
		}
		for _, m := range list {
			if err := unmountHere(m); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrEnded) || errors.Is(err, errNoProcess) {
		return fmt.Errorf("unmounting in namespace %s: %w", ns.Name(), err)
	}
	return err
}

// ErrEnded says that a mount namespace has ended: the kernel lists it no longer.
var ErrEnded = errors.New("the mount namespace has ended")

// errNoProcess says that a namespace was not found on a kernel that lists none. A file or a bind
// mount may keep it.
var errNoProcess = errors.New("no process is in it, and this kernel does not show whether it has ended (Linux 6.12 needed)")

// within calls f on a thread that is in a mount namespace, with a file descriptor of the namespace.
// The thread has a working directory of its own. /proc there may be that of other processes.
func within(ctx context.Context, ns Namespace, f func(fd int) error) error {
	if ns.ID == 0 {
		return withinByProcess(ns, f)
	}
	found := false
	err := EachNamespace(ctx, func(fd int) error {
		id, _, err := identityOf(fd)
		if err != nil || id != ns.ID {
			return err
		}
		found = true
		return onDyingThread(func() error { return inside(fd, f) })
	})
	if err == nil && !found {
		return ErrEnded // ids are not used again, and a namespace that only a file keeps is listed
	}
	return err
}

// withinByProcess is within for a kernel that does not number namespaces (before Linux 6.11): a
// thread in the namespace leads there. The inode number of a namespace is not used again while a
// file of it is open.
func withinByProcess(ns Namespace, f func(fd int) error) error {
	files, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/mnt")
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	for _, file := range files {
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // the process has ended
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Ino == ns.Inode {
			defer unix.Close(fd)
			return onDyingThread(func() error { return inside(fd, f) })
		}
		unix.Close(fd)
	}
	return errNoProcess
}

// inside takes the calling thread into a namespace and back, so that it keeps neither the namespace
// nor a directory of it while it ends.
func inside(fd int, f func(fd int) error) (err error) {
	home, err := openOwn()
	if err != nil {
		return err
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
	return f(fd)
}

func unmountHere(m Mount) error {
	p, err := OpenPoint(m)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.here(p.unmount)
}

// onDyingThread runs f on a thread that ends afterwards, as one must whose working directory or
// namespace was changed. The process's first thread never ends: when the goroutine finds itself on
// it, it keeps it busy while another one runs f. A child process that was started on the thread
// with Pdeathsig set gets that signal when the thread ends.
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
