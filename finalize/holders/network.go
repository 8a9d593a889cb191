package holders

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// networks are the network namespaces but the own one. Each is open from the moment in which it was
// seen: the process that it was seen at may end.
type networks struct {
	own    string            // "net:[4026531840]"
	opened map[string]int    // descriptors by name
	lost   map[string]string // where those were seen that could not be opened any more
}

func (n *networks) close() {
	for _, fd := range n.opened {
		unix.Close(fd)
	}
}

// needed reports whether a network namespace has to be opened.
func (n *networks) needed(name string) bool {
	_, opened := n.opened[name]
	return !opened && name != n.own
}

// network notes the network namespace of a task.
func (w *walker) network(t task) {
	link, err := w.file.link(t.dir, w.file.named("ns/net"))
	if err != nil {
		w.record.note(t, "ns/net", err)
		return
	}
	w.scan.openNetwork(string(link), t, "ns/net")
}

// openNetwork opens a network namespace by a file of a task.
func (s *scan) openNetwork(name string, t task, file string) {
	s.mu.Lock()
	needed := s.networks.needed(name)
	s.mu.Unlock()
	if !needed {
		return
	}
	fd, err := unix.Openat(t.dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil && !gone(err) {
		s.cannot(file, t.path(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case gone(err):
		s.networks.lost[name] = t.path()
	case err == nil && s.networks.needed(name):
		s.networks.opened[name] = fd
	case err == nil: // another worker was faster
		unix.Close(fd)
	}
}

// findForeignSockets asks the other network namespaces: of processes, of their open files and
// sockets, and of bind mounts. Then the sockets that nobody has open are named: they wait to be
// accepted, or are under way themselves.
func findForeignSockets(ctx context.Context, s *scan) error {
	s.openBoundNetworks()
	for name, fd := range s.networks.opened {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.askSockets(name, func() (sockets, error) { return socketsIn(fd) })
	}
	if err := s.askUnlisted(ctx); err != nil {
		return err
	}
	for name, where := range s.networks.lost {
		if s.networks.needed(name) {
			s.notSeen(Answers, "sockets", name, fmt.Errorf("%s, which was in it, has ended", where))
		}
	}
	for _, use := range s.socketUses {
		s.nameSocket(use)
	}
	for inode, b := range s.sockets {
		if !s.seenSockets[inode] {
			s.add(Holder{Class: UnixSocket, Path: b.name, Evidence: b.evidence(),
				Remedy: "close the socket; no process was seen to have it open: it may wait to be accepted, or be under way in another socket"})
		}
	}
	return nil
}

// openBoundNetworks opens the network namespaces that are bound to a file. One that is bound in
// another mount namespace cannot be reached.
func (s *scan) openBoundNetworks() {
	for ns, m := range s.snapshot.All {
		if m.FSType != "nsfs" || !strings.HasPrefix(m.Root, "net:[") || !s.networks.needed(m.Root) {
			continue
		}
		if !ns.Own {
			s.networks.lost[m.Root] = m.Point + inNamespace(ns)
			continue
		}
		fd, err := unix.Open(m.Point, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.notSeen(Answers, "network namespace", m.Point, err)
			continue
		}
		s.networks.opened[m.Root] = fd
	}
}

// askUnlisted asks the network namespaces of open unix sockets that none of the others has: a
// socket keeps its namespace, also when no process is in it.
func (s *scan) askUnlisted(ctx context.Context) error {
	listed := map[uint64]bool{}
	for _, inode := range s.listed {
		listed[inode] = true
	}
	asked := map[string]bool{}
	for _, use := range s.socketUses {
		if err := ctx.Err(); err != nil {
			return err
		}
		if listed[use.inode] {
			continue
		}
		listed[use.inode] = true
		if err := s.askNetworkOf(use, asked); err != nil {
			s.notSeen(Answers, "socket", fmt.Sprintf("/proc/%d/fd/%d", use.pid, use.fd), err)
		}
	}
	return nil
}

// SIOCGSKNS of linux/sockios.h: the network namespace of a socket.
const socketNetwork = 0x894C

// askNetworkOf asks the network namespace of a unix socket, once.
func (s *scan) askNetworkOf(use socketUse, asked map[string]bool) error {
	file, err := borrow(use.pid, use.fd)
	if errors.Is(err, unix.EBADF) && use.tid == use.pid {
		return nil // closed since
	}
	if err != nil {
		return err
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return fmt.Errorf("reading the inode of the socket: %w", err)
	}
	if st.Ino != use.inode && use.tid == use.pid {
		return nil // closed since
	}
	if st.Ino != use.inode {
		return fmt.Errorf("thread %d has files of its own, which cannot be borrowed", use.tid)
	}
	domain, err := unix.GetsockoptInt(file, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if errors.Is(err, unix.ENOTSOCK) || err == nil && domain != unix.AF_UNIX {
		return nil
	}
	if err != nil {
		return fmt.Errorf("asking for the kind of the socket: %w", err)
	}
	ns, err := unix.IoctlRetInt(file, socketNetwork)
	if err != nil {
		return fmt.Errorf("asking for the network namespace of the socket: %w", err)
	}
	unix.CloseOnExec(ns)
	defer unix.Close(ns)
	name, err := readLink(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", ns))
	if err != nil || asked[name] {
		return err
	}
	asked[name] = true
	s.askSockets(name, func() (sockets, error) { return socketsIn(ns) })
	return nil
}

// socketsIn asks in another network namespace, into which the thread goes for it.
func socketsIn(namespace int) (list sockets, err error) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return sockets{}, err
	}
	defer unix.Close(home)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return sockets{}, fmt.Errorf("entering the network namespace: %w", err)
	}
	list, err = listSockets()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return sockets{}, errors.Join(err, fmt.Errorf("leaving the network namespace: %w", back)) // the thread stays locked and ends
	}
	runtime.UnlockOSThread()
	return list, err
}
