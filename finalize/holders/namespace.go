package holders

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"installer/disk/mounts"
)

// keeper is a process that keeps a mount namespace from ending.
type keeper struct {
	task     task
	comm     string
	family   bool
	evidence string
	remedy   string
}

// namespace notes that a task is in a namespace that holds a mount of the target.
func (w *walker) namespace(t task) {
	if len(w.scan.foreign) == 0 {
		return
	}
	link, err := readLink(t.dir, "ns/mnt")
	if err != nil {
		w.record.note(t, "ns/mnt", err)
		return
	}
	w.record.keeps(t, link, fmt.Sprintf("%s/ns/mnt -> %s", t.path(), link),
		"unmount the target in this process's mount namespace, or end the process")
}

// namespaceFile notes that an open file is such a namespace, or one of the network.
func (w *walker) namespaceFile(t task, fd int) {
	name := "fd/" + strconv.Itoa(fd)
	link, err := readLink(t.dir, name)
	if err != nil {
		w.record.note(t, "fd", err)
		return
	}
	if strings.HasPrefix(link, "net:[") {
		w.scan.openNetwork(link, t, name)
	}
	w.record.keeps(t, link, fmt.Sprintf("%s/%s -> %s", t.path(), name, link),
		"close this file descriptor, or unmount the target in the namespace that it stands for")
}

// namespaceInode reads "mnt:[4026532178]".
func namespaceInode(link string) (uint64, bool) {
	text, ok := strings.CutPrefix(link, "mnt:[")
	text, closed := strings.CutSuffix(text, "]")
	inode, err := strconv.ParseUint(text, 10, 64)
	return inode, ok && closed && err == nil
}

// keepersShown bounds how many processes of one namespace are named.
const keepersShown = 20

// findNamespaces names who keeps each namespace that holds a mount of the target: processes in it,
// open files of it, bind mounts of it.
func findNamespaces(_ context.Context, s *scan) error {
	binds := s.namespaceBinds()
	for _, ns := range s.snapshot.Namespaces {
		if !s.foreign[ns.Inode] || !s.holdsForeign(ns) {
			continue
		}
		kept := append(s.keptByProcesses(ns), binds[ns.Inode]...)
		if len(kept) == 0 {
			kept = []Holder{{Class: Namespace, Namespace: namespaceName(ns),
				Evidence: "the kernel lists the namespace, but no process is in it and no open file or bind mount of it was seen: its file descriptor may be under way in a socket",
				Remedy:   "unmount the target in this namespace, or end the process that passes the descriptor on"}}
		}
		s.add(kept...)
	}
	return nil
}

// holdsForeign reports whether a namespace has a mount of the target that is not the target's own.
func (s *scan) holdsForeign(ns mounts.Namespace) bool {
	for _, m := range ns.Mounts {
		if s.target.onDevice(m.Dev) && !s.own[m.ID] {
			return true
		}
	}
	return false
}

func (s *scan) keptByProcesses(ns mounts.Namespace) []Holder {
	var list []Holder
	keepers := s.keepers[ns.Inode]
	for i, k := range keepers {
		if i == keepersShown {
			list[i-1].Evidence += fmt.Sprintf(" (and %d more processes)", len(keepers)-keepersShown)
			break
		}
		self := k.task.pid == os.Getpid()
		list = append(list, Holder{Class: Namespace, PID: k.task.pid, TID: k.task.tid, Comm: k.comm,
			Namespace: namespaceName(ns), Evidence: k.evidence, Remedy: k.remedy,
			Self: self, Child: k.family && !self})
	}
	return list
}

// namespaceBinds returns the bind mounts of namespace files, by the namespace.
func (s *scan) namespaceBinds() map[uint64][]Holder {
	binds := map[uint64][]Holder{}
	for ns, m := range s.snapshot.All {
		inode, ok := namespaceInode(m.Root)
		if m.FSType != "nsfs" || !ok || !s.foreign[inode] {
			continue
		}
		binds[inode] = append(binds[inode], Holder{Class: Namespace, Path: m.Point,
			Namespace: mounts.NamespaceName(inode), Evidence: "mountinfo: " + m.Line(),
			Remedy: fmt.Sprintf("unmount the target in that namespace, or unmount %s%s, which keeps it", m.Point, inNamespace(ns))})
	}
	return binds
}
