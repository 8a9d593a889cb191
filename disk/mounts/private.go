package mounts

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// EnterPrivate puts the whole process into a mount namespace of its own. It is to be called first
// thing in main, with the process's arguments and environment.
//
// The first call makes the namespace, in which mounts of the outer one still arrive and go but none
// of ours get out (MS_SLAVE), and executes the program again: no thread and no parent stays behind
// to pin the namespace that was left. It returns only on an error. In the new program the variable
// named by marker holds the namespace's identity; there the call returns the environment without
// it, for the caller to install.
func EnterPrivate(marker string, argv, env []string) ([]string, error) {
	return enter(marker, argv, env, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("making a private mount namespace (needs CAP_SYS_ADMIN; run as root, in a container with --privileged): %w", err)
		}
		return SetPropagation("/", unix.MS_REC|unix.MS_SLAVE)
	})
}

// EnterNamespace puts the whole process into the mount namespace that path stands for, such as
// /proc/PID/ns/mnt, in the manner of EnterPrivate.
func EnterNamespace(marker, path string, argv, env []string) ([]string, error) {
	return enter(marker, argv, env, func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the mount namespace %s: %w", path, err)
		}
		defer unix.Close(fd)
		return joinNamespace(fd)
	})
}

// joinNamespace moves the calling thread, which must be locked and must end or execute a program
// afterwards.
func joinNamespace(fd int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("giving the thread a working directory of its own: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the mount namespace (needs CAP_SYS_ADMIN and CAP_SYS_CHROOT): %w", err)
	}
	return nil
}

func enter(marker string, argv, env []string, move func() error) ([]string, error) {
	runtime.LockOSThread() // the new program takes over this thread's namespace
	defer runtime.UnlockOSThread()
	current, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	rest, value := without(env, marker)
	if value == current {
		return rest, nil
	}
	// Opened before the move: the program need not exist in the new namespace.
	exe, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the running program: %w", err)
	}
	defer unix.Close(exe)
	if err := move(); err != nil {
		return nil, err
	}
	if current, err = currentNamespace(); err != nil {
		return nil, err
	}
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", exe), argv, append(rest, marker+"="+current))
	return nil, fmt.Errorf("executing the program again in the new mount namespace: %w", err)
}

// currentNamespace identifies the calling thread's mount namespace by its id, or by its inode where
// the kernel has no ids.
func currentNamespace() (string, error) {
	id, inode, err := identity("/proc/thread-self/ns/mnt")
	return fmt.Sprintf("%d:%d", id, inode), err
}

func without(env []string, name string) (rest []string, value string) {
	for _, v := range env {
		if after, ok := strings.CutPrefix(v, name+"="); ok {
			value = after
			continue
		}
		rest = append(rest, v)
	}
	return rest, value
}
