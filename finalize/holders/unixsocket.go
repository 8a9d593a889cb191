package holders

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Numbers of linux/unix_diag.h that golang.org/x/sys does not carry.
const (
	diagShowName = 1 // UDIAG_SHOW_NAME
	diagShowVFS  = 2 // UDIAG_SHOW_VFS
	diagName     = 0 // UNIX_DIAG_NAME
	diagVFS      = 1 // UNIX_DIAG_VFS
)

// boundSocket is a socket with a name in a file system. It holds the file system also when the name
// is unlinked, and so do the sockets accepted from it.
type boundSocket struct {
	inode uint64 // of the socket
	name  string // as bound, perhaps relative
	dev   mounts.DevNum
	file  uint32 // inode of the name
	net   string // the network namespace
}

func (b boundSocket) evidence() string {
	return fmt.Sprintf("sock_diag of %s: socket %d, name %q, inode %d on device %s", b.net, b.inode, b.name, b.file, b.dev)
}

// findBoundSockets asks the own network namespace for its sockets before the processes are walked,
// which is where almost all are.
func findBoundSockets(_ context.Context, s *scan) error {
	own, err := readLink(unix.AT_FDCWD, "/proc/thread-self/ns/net")
	if err != nil {
		s.cannot("network namespace", "this process", err)
		return nil
	}
	s.networks.own = own
	s.askSockets(own, listSockets)
	return nil
}

func (s *scan) askSockets(net string, ask func() (sockets, error)) {
	list, err := ask()
	if err != nil {
		s.cannot("sockets (sock_diag)", net, err)
		return
	}
	s.listed = append(s.listed, list.inodes...)
	for _, b := range list.bound {
		if s.target.onDevice(b.dev) {
			b.net = net
			s.sockets[b.inode] = b
		}
	}
}

// unowned counts the sockets that are open in no process that could be read. One that waits to be
// accepted has no inode yet and does not count. None keeps the target that is unused.
func (s *scan) unowned() int {
	if s.unused {
		return 0
	}
	open := map[uint64]bool{0: true}
	for _, use := range s.socketUses {
		open[use.inode] = true
	}
	for _, inode := range s.openSockets {
		open[inode] = true
	}
	count := 0
	for _, inode := range s.listed {
		if !open[inode] {
			count++
		}
	}
	return count
}

// sockets are the unix sockets of one network namespace.
type sockets struct {
	bound  []boundSocket
	inodes []uint64 // of all of them
}

// listSockets asks the calling thread's network namespace, see sock_diag(7).
func listSockets() (sockets, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return sockets{}, fmt.Errorf("opening sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return sockets{}, fmt.Errorf("asking sock_diag: %w", err)
	}
	var list sockets
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return sockets{}, fmt.Errorf("reading from sock_diag: %w", err)
		}
		done, err := list.parse(buf[:n])
		if done || err != nil {
			return list, err
		}
	}
}

// diagRequest asks for all unix sockets: struct nlmsghdr and unix_diag_req.
func diagRequest() []byte {
	const size = 16 + 24
	b := make([]byte, size)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], size)
	ne.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[16] = unix.AF_UNIX
	ne.PutUint32(b[20:], ^uint32(0)) // every state
	ne.PutUint32(b[28:], diagShowName|diagShowVFS)
	return b
}

// parse reads the messages of one answer and reports whether it was the last.
func (l *sockets) parse(b []byte) (done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= 16 {
		length := int(ne.Uint32(b))
		if length < 16 || length > len(b) {
			return true, errors.New("reading from sock_diag: a message is longer than the answer")
		}
		switch ne.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if length < 20 {
				return true, errors.New("reading from sock_diag: short error message")
			}
			return true, fmt.Errorf("asking sock_diag: %w", unix.Errno(-int32(ne.Uint32(b[16:]))))
		}
		l.add(b[16:length])
		b = b[min(len(b), (length+3)&^3):]
	}
	return false, nil
}

func (l *sockets) add(message []byte) {
	s, named := parseSocket(message)
	if len(message) >= 16 {
		l.inodes = append(l.inodes, s.inode)
	}
	if named {
		l.bound = append(l.bound, s)
	}
}

// parseSocket reads struct unix_diag_msg and its attributes; false for a socket without a name in a
// file system.
func parseSocket(b []byte) (boundSocket, bool) {
	if len(b) < 16 {
		return boundSocket{}, false
	}
	ne := binary.NativeEndian
	s := boundSocket{inode: uint64(ne.Uint32(b[4:]))}
	found := false
	for b = b[16:]; len(b) >= 4; {
		length := int(ne.Uint16(b))
		if length < 4 || length > len(b) {
			break
		}
		switch value := b[4:length]; {
		case ne.Uint16(b[2:]) == diagName:
			s.name = strings.TrimRight(string(value), "\x00")
		case ne.Uint16(b[2:]) == diagVFS && len(value) >= 8:
			dev := ne.Uint32(value[4:])
			s.file, s.dev, found = ne.Uint32(value), mounts.DevNum{Major: dev >> 20, Minor: dev & (1<<20 - 1)}, true
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return s, found
}

// socketUse is an open socket of a task.
type socketUse struct {
	pid, tid, fd int
	inode        uint64
}

// socket looks at an open socket: whether file descriptors are under way in it, and, later, whether
// it is one of those with a name on the target.
func (w *walker) socket(t task, fd int) {
	info, err := w.file.fdInfo(t, fd)
	if err != nil {
		w.record.note(t, "fdinfo", err)
		return
	}
	if n := socketCount(info.extra); n > 0 {
		w.inFlight(t, fd, n)
	}
	w.record.uses = append(w.record.uses, socketUse{t.pid, t.tid, fd, info.inode})
}

// nameSocket names who has a socket open that is bound to a name on the target.
func (s *scan) nameSocket(use socketUse) {
	b, ok := s.sockets[use.inode]
	if !ok {
		return
	}
	s.seenSockets[use.inode] = true
	t := task{pid: use.pid, tid: use.tid}
	dir, err := unix.Open(t.path(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.cannot("directory", t.path(), err)
		return
	}
	defer unix.Close(dir)
	t.dir = dir
	r := record{scan: s, file: &procFile{}}
	r.hit(t, Holder{Class: UnixSocket, Path: b.name, Remedy: "close this socket, or end the process",
		Evidence: fmt.Sprintf("%s/fd/%d -> socket:[%d]; %s", t.path(), use.fd, use.inode, b.evidence())})
	s.add(r.found...)
}
