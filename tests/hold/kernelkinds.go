package hold

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pickContext keeps the superblock by an fs context.
func pickContext(args []string) error {
	_, err := unix.Fspick(unix.AT_FDCWD, args[0], unix.FSPICK_CLOEXEC)
	return err
}

// sendContext leaves an fs context under way in a socket, and nowhere else.
func sendContext(args []string) error {
	context, err := unix.Fspick(unix.AT_FDCWD, args[0], unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(context)
	sockets, err := pair()
	if err != nil {
		return err
	}
	return unix.Sendmsg(sockets[0], []byte("x"), unix.UnixRights(context), nil, 0)
}

// watch marks the mount at args[0] and, when an event is wanted, opens a file on
// it so that one is pending.
func watch(args []string, event bool) error {
	group, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return err
	}
	err = unix.FanotifyMark(group, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN, unix.AT_FDCWD, args[0])
	if err != nil || !event {
		return err
	}
	_, err = os.ReadFile(args[0] + "/file")
	return err
}

func inotify(args []string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(fd, args[0], unix.IN_OPEN)
	return err
}

func bindSocket(args []string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The name is relative, so that it does not show its place.
	if err := unix.Chdir(args[0]); err != nil {
		return err
	}
	os.Remove("sock") // an earlier one's
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "sock"}); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

func bindUnlinked(args []string) error {
	if err := bindSocket(args); err != nil {
		return err
	}
	return os.Remove(args[0] + "/sock")
}

// bindAccepted keeps the accepted side of a socket that was bound to a name on the
// target, and neither the listening one nor the name.
func bindAccepted(args []string) error {
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	name := &unix.SockaddrUnix{Name: args[0] + "/taken"}
	if err := unix.Bind(listener, name); err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, name); err != nil {
		return err
	}
	if _, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC); err != nil {
		return err
	}
	return errors.Join(unix.Close(listener), os.Remove(name.Name))
}

// leaveCycle makes garbage: two sockets, each under way in the other one, one of
// them with a file of the target behind it. No process has any of it open; the
// kernel frees it when its collector of such cycles happens to run.
func leaveCycle(path string) error {
	sockets, err := pair()
	if err != nil {
		return err
	}
	if err := sendAndClose(sockets[0], path); err != nil {
		return err
	}
	for i, socket := range sockets {
		if err := unix.Sendmsg(sockets[1-i], []byte("x"), unix.UnixRights(socket), nil, 0); err != nil {
			return err
		}
	}
	return errors.Join(unix.Close(sockets[0]), unix.Close(sockets[1]))
}

func pair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// sendFile leaves a file of the target under way in a socket, and nowhere else.
func sendFile(args []string) error {
	sockets, err := pair()
	if err != nil {
		return err
	}
	return sendAndClose(sockets[0], args[0])
}

func sendAndClose(socket int, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendmsg(socket, []byte("x"), unix.UnixRights(fd), nil, 0)
}

// registerFile registers a file in an io_uring and closes it; see
// io_uring_setup(2) and io_uring_register(2).
func registerFile(args []string) error {
	const registerFiles = 2
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_setup: %w", errno)
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	files := [1]int32{int32(fd)}
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&files)), 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	return unix.Close(fd)
}

// serveNothing mounts a FUSE file system at args[0] whose server never answers, and
// keeps a place on it; see fuse(4). When the process ends, so do all requests; the
// mount stays.
func serveNothing(args []string) error {
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", server)
	if err := unix.Mount("hung", args[0], "fuse", 0, options); err != nil {
		return err
	}
	return keep(args[0], unix.O_PATH) // any other way to open it asks the server
}
