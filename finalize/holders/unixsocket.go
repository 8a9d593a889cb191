package holders

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// Numbers of linux/unix_diag.h that golang.org/x/sys does not carry.
const (
	diagShowName = 1 // UDIAG_SHOW_NAME
	diagShowVFS  = 2 // UDIAG_SHOW_VFS
	diagName     = 0 // UNIX_DIAG_NAME
	diagVFS      = 1 // UNIX_DIAG_VFS
)

// boundSocket is a socket with a name in a file system. It holds the file system
// also when the name is unlinked, and so do the sockets accepted from it.
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

// findBoundSockets asks every network namespace for its sockets. Who has them
// open is seen later, from the processes.
func findBoundSockets(ctx context.Context, s *scan) error {
	own, err := readLink(unix.AT_FDCWD, "/proc/thread-self/ns/net")
	if err != nil {
		s.cannot("network namespace", "this process", err)
		return nil
	}
	s.askSockets(own, func() ([]boundSocket, error) { return bound() })
	for link, path := range s.networkNamespaces(own) {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.askSockets(link, func() ([]boundSocket, error) { return boundIn(path) })
	}
	return nil
}

func (s *scan) askSockets(net string, ask func() ([]boundSocket, error)) {
	list, err := ask()
	if err != nil {
		s.cannot("sockets (sock_diag)", net, err)
		return
	}
	for _, b := range list {
		if s.target.onDevice(b.dev) {
			b.net = net
			s.sockets[b.inode] = b
		}
	}
}

// networkNamespaces returns a path to each network namespace but the own one: of
// a process in it, or of a bind mount in the own mount namespace.
func (s *scan) networkNamespaces(own string) map[string]string {
	found := map[string]string{}
	err := eachNumber(s.proc, ".", make([]byte, 64<<10), func(pid int) {
		path := strconv.Itoa(pid) + "/ns/net"
		if link, err := readLink(s.proc, path); err == nil && link != own {
			found[link] = "/proc/" + path
		}
	})
	if err != nil {
		s.cannot("processes", "/proc", err)
	}
	for _, m := range s.snapshot.Own().Mounts {
		if m.FSType == "nsfs" && strings.HasPrefix(m.Root, "net:[") && m.Root != own {
			found[m.Root] = m.Point
		}
	}
	return found
}

// boundIn asks in another network namespace, into which the thread goes for it.
func boundIn(path string) (list []boundSocket, err error) {
	target, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(target)
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer unix.Close(home)
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("entering the network namespace: %w", err)
	}
	list, err = bound()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return nil, errors.Join(err, fmt.Errorf("leaving the network namespace: %w", back)) // the thread stays locked and ends
	}
	runtime.UnlockOSThread()
	return list, err
}

// bound asks the calling thread's network namespace, see sock_diag(7).
func bound() ([]boundSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("asking sock_diag: %w", err)
	}
	var list []boundSocket
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("reading from sock_diag: %w", err)
		}
		more, done, err := parseDiag(buf[:n])
		list = append(list, more...)
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

// parseDiag reads the messages of one answer and says whether it was the last.
func parseDiag(b []byte) (list []boundSocket, done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= 16 {
		length := int(ne.Uint32(b))
		if length < 16 || length > len(b) {
			return list, true, errors.New("reading from sock_diag: a message is longer than the answer")
		}
		switch ne.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return list, true, nil
		case unix.NLMSG_ERROR:
			if length < 20 {
				return list, true, errors.New("reading from sock_diag: short error message")
			}
			return list, true, fmt.Errorf("asking sock_diag: %w", unix.Errno(-int32(ne.Uint32(b[16:]))))
		}
		if s, ok := parseSocket(b[16:length]); ok {
			list = append(list, s)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return list, false, nil
}

// parseSocket reads struct unix_diag_msg and its attributes; false for a socket
// without a name in a file system.
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
			s.name = string(value)
		case ne.Uint16(b[2:]) == diagVFS && len(value) >= 8:
			dev := ne.Uint32(value[4:])
			s.file, s.dev, found = ne.Uint32(value), mounts.DevNum{Major: dev >> 20, Minor: dev & (1<<20 - 1)}, true
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return s, found
}

// socket looks at an open socket: whether it is one of those with a name on the
// target, and whether file descriptors are under way in it.
func (w *walker) socket(t task, fd int, info fdInfo) {
	if b, ok := w.sockets[info.inode]; ok {
		w.mu.Lock()
		w.seenSockets[info.inode] = true
		w.mu.Unlock()
		w.hit(t, Holder{Class: UnixSocket, Path: b.name, Remedy: "close this socket, or end the process",
			Evidence: fmt.Sprintf("%s/fd/%d -> socket:[%d]; %s", t.path, fd, info.inode, b.evidence())})
	}
	if n := socketCount(info.extra); n > 0 {
		w.inFlight(t, fd, n)
	}
}

// findOrphanSockets names the sockets with a name on the target that no process
// was seen to have open: they wait to be accepted, or are under way themselves.
func findOrphanSockets(_ context.Context, s *scan) error {
	for inode, b := range s.sockets {
		if !s.seenSockets[inode] {
			s.add(Holder{Class: UnixSocket, Path: b.name, Evidence: b.evidence(),
				Remedy: "close the socket; no process was seen to have it open: it may wait to be accepted, or be under way in another socket"})
		}
	}
	return nil
}
