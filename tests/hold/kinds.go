// Package hold makes the calling process hold a file system, in every way that a
// process can. It serves tests of the search for holders, and knows nothing of it.
package hold

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Hold makes a holder of a kind in this process. Its resources are never
// given back but by the end of the process. It is to be called on the process's
// first thread; args[0] is a path on the target.
func Hold(kind string, args []string) error {
	kinds := holderKinds()
	make, ok := kinds[kind]
	if !ok {
		return fmt.Errorf("no holder of kind %q", kind)
	}
	return make(args)
}

// holderKinds are the ways to hold.
func holderKinds() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"nothing":     func([]string) error { return nil },
		"fd":          func(a []string) error { return keep(a[0], unix.O_RDONLY) },
		"fd-write":    func(a []string) error { return keep(a[0], unix.O_RDWR) },
		"fd-path":     func(a []string) error { return keep(a[0], unix.O_PATH) },
		"fd-deleted":  keepDeleted,
		"map":         func(a []string) error { return mapFile(a[0]) },
		"map-deleted": mapDeleted,
		"map-write":   mapShared,
		"fd-tmpfile":  func(a []string) error { return keep(a[0], unix.O_TMPFILE|unix.O_RDWR) },
		"fd-locked":   keepLocked,
		"cwd":         func(a []string) error { return unix.Chdir(a[0]) },
		"root":        changeRoot,
		"thread-cwd":  func(a []string) error { return onThread(unix.CLONE_FS, func() error { return unix.Chdir(a[0]) }) },
		"thread-fd": func(a []string) error {
			return onThread(unix.CLONE_FILES, func() error { return keep(a[0], unix.O_RDONLY) })
		},
		"zombie-fd":  func(a []string) error { return zombieLeader(func() error { return keep(a[0], unix.O_RDONLY) }) },
		"zombie-map": func(a []string) error { return zombieLeader(func() error { return mapFile(a[0]) }) },
		"zombie-cwd": func(a []string) error { return zombieLeader(func() error { return unix.Chdir(a[0]) }) },
		"clone-ns":   func([]string) error { return nil }, // the start has made the namespace
		"ns-kept":    func([]string) error { return onThread(unix.CLONE_NEWNS, func() error { return nil }) },
		"ns-slave": func([]string) error {
			return onThread(unix.CLONE_NEWNS, func() error { return propagate(unix.MS_SLAVE) })
		},
		"ns-private": func([]string) error {
			return onThread(unix.CLONE_NEWNS, func() error { return propagate(unix.MS_PRIVATE) })
		},
		"thread-ns":         func([]string) error { return onThread(0, privateNamespace) },
		"ns-fd":             func([]string) error { return namespaceFD() },
		"detached-tree":     detachedTree,
		"detached-file":     detachedFile,
		"freeze":            freeze,
		"hung":              serveNothing,
		"mount-image":       mountImage,
		"claim":             func(a []string) error { return keep(a[0], unix.O_RDWR|unix.O_EXCL) },
		"plain-device":      func(a []string) error { return keep(a[0], unix.O_RDWR) },
		"fs-context":        pickContext,
		"context-in-flight": sendContext,
		"fanotify":          func(a []string) error { return watch(a, true) },
		"fanotify-read":     func(a []string) error { return watch(a, false) },
		"inotify":           inotify,
		"socket":            bindSocket,
		"socket-gone":       bindUnlinked,
		"socket-net": func(a []string) error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return bindSocket(a)
		},
		"socket-thread-net": func(a []string) error { return onThread(unix.CLONE_NEWNET, func() error { return bindSocket(a) }) },
		"socket-taken":      bindAccepted,
		"in-flight":         sendFile,
		"garbage":           func(a []string) error { return leaveCycle(a[0]) },
		"ring":              registerFile,
	}
}

func keep(path string, flags int) error {
	_, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	return err
}

func keepDeleted(args []string) error {
	if err := keep(args[0], unix.O_RDONLY); err != nil {
		return err
	}
	return os.Remove(args[0])
}

func mapFile(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Mmap(fd, 0, 64<<10, unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		return err
	}
	return unix.Close(fd)
}

func mapDeleted(args []string) error {
	if err := mapFile(args[0]); err != nil {
		return err
	}
	return os.Remove(args[0])
}

func changeRoot(args []string) error {
	if err := unix.Chroot(args[0]); err != nil {
		return err
	}
	return nil // the working directory stays outside
}

// onThread runs f on a thread of its own that has unshared flags and stays.
func onThread(flags int, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // /proc/PID shows the first thread
			result <- onThread(flags, f)
			select {}
		}
		if err := unix.Unshare(flags); err != nil {
			result <- err
			return
		}
		result <- f()
		select {}
	}()
	return <-result
}

func privateNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return propagate(unix.MS_PRIVATE)
}

func propagate(how uintptr) error { return unix.Mount("", "/", "", unix.MS_REC|how, "") }

// zombieLeader runs f, and ends the first thread alone. TestMain runs on it, as
// Main's callers lock it in an init function.
func zombieLeader(f func() error) error {
	if err := f(); err != nil {
		return err
	}
	if unix.Gettid() != unix.Getpid() {
		return fmt.Errorf("TestMain is not on the first thread")
	}
	go func() {
		for !isZombie() { // the test must see the end, not the way to it
			runtime.Gosched()
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return nil
}

func isZombie() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", unix.Getpid()))
	return err == nil && bytes.Contains(text, []byte(") Z "))
}

// namespaceFD keeps a namespace by an open file alone.
func namespaceFD() error {
	fds := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := privateNamespace(); err != nil {
			fds <- err
			return
		}
		fds <- keep("/proc/thread-self/ns/mnt", unix.O_RDONLY)
		// back to the first namespace, so that no thread is in the new one
		if err := backHome(); err != nil {
			fds <- err
			return
		}
		fds <- nil
	}()
	if err := <-fds; err != nil {
		return err
	}
	return <-fds
}

func backHome() error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", unix.Getppid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

func detachedTree(args []string) error {
	_, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	return err
}

// detachedFile keeps a file that was opened through a mount that is attached
// nowhere, and not that mount itself.
func detachedFile(args []string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	_, err = unix.Openat(tree, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

func mapShared(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	return unix.Close(fd)
}

func keepLocked(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Flock(fd, unix.LOCK_EX)
}

// freeze freezes the file system and keeps nothing of it open. It outlives the
// process. The number is FIFREEZE of linux/fs.h.
func freeze(args []string) error {
	const fiFreeze = 0xC0045877
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fiFreeze, 0); errno != 0 {
		return fmt.Errorf("freezing: %w", errno)
	}
	return nil
}

// mountImage mounts the file system in the file args[0] at args[1], with no loop
// device between. It stays when the process ends.
func mountImage(args []string) error {
	context, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(context)
	if err := unix.FsconfigSetString(context, "source", args[0]); err != nil {
		return err
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return err
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return unix.MoveMount(mount, "", unix.AT_FDCWD, args[1], unix.MOVE_MOUNT_F_EMPTY_PATH)
}
