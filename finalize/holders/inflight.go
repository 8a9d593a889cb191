package holders

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// inFlight looks at the file descriptors that are under way in a socket. Those that can be peeked
// at are certain; the rest is a suspect.
func (w *walker) inFlight(t task, fd, count int) {
	h := Holder{Class: InFlight, Path: "socket",
		Evidence: fmt.Sprintf("%s/fdinfo/%d: scm_fds: %d", t.path(), fd, count),
		Remedy:   "let the process receive the messages of this socket, or close the socket, or end the process"}
	seen, path, err := w.target.peek(t.pid, fd)
	switch {
	case path != "":
		h.Path = path
		h.Evidence += " (one of them is on the target)"
	case err == nil && seen >= count:
		return
	case err != nil:
		h.Suspect = true
		h.Evidence += fmt.Sprintf(" (cannot see of which file system: %v)", err)
	default:
		h.Suspect = true
		h.Evidence += fmt.Sprintf(" (only %d of them could be seen)", seen)
	}
	w.record.hit(t, h)
}

// peek looks at the first message in another process's socket without taking it. It returns how
// many files it carries, and the path of one on the target.
func (c *comparison) peek(pid, fd int) (seen int, onTarget string, err error) {
	borrowed, err := borrow(pid, fd)
	if err != nil {
		return 0, "", err
	}
	defer unix.Close(borrowed)
	const mostFiles = 253 // SCM_MAX_FD in the kernel
	control := make([]byte, unix.CmsgSpace(4*mostFiles))
	_, n, _, _, err := unix.Recvmsg(borrowed, make([]byte, 1), control,
		unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, "", fmt.Errorf("peeking into the socket: %w", err)
	}
	files, err := receivedFiles(control[:n])
	for _, file := range files {
		seen++
		if path, ok := c.isReceivedHeld(file); ok {
			onTarget = path
		}
		unix.Close(file)
	}
	return seen, onTarget, err
}

func receivedFiles(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("reading the control data of the message: %w", err)
	}
	var files []int
	for _, m := range messages {
		if m.Header.Type == unix.SCM_RIGHTS {
			more, err := unix.ParseUnixRights(&m)
			if err != nil {
				return files, fmt.Errorf("reading the files that came with the message: %w", err)
			}
			files = append(files, more...)
		}
	}
	return files, nil
}

func (c *comparison) isReceivedHeld(fd int) (path string, held bool) {
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	where, err := c.file.where(unix.AT_FDCWD, c.file.named(link))
	if err != nil || !c.has(where, func() string { return link }) {
		return "", false
	}
	path, err = os.Readlink(link)
	return path, err == nil
}

// socketCount reads "scm_fds: 1".
func socketCount(extra string) int {
	_, value, ok := strings.Cut(extra, "scm_fds:")
	value, _, _ = strings.Cut(strings.TrimSpace(value), "\n")
	n, number := decimal([]byte(value))
	if !ok || !number {
		return 0
	}
	return n
}
