package holders

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// errUnmounted says that the number of a superblock is not known, as it is mounted nowhere.
var errUnmounted = errors.New("the number of a btrfs that is mounted nowhere is not known")

// tableSearch is the part of a search that goes by the kernel's own tables.
type tableSearch struct {
	*scan
	asked []mounts.DevNum // the superblocks that are held
}

// ask reads from the kernel's own tables who uses the file systems of the target.
func (s *tableSearch) ask() (kernel.Users, error) {
	s.asked = slices.Clone(s.target.Devices)
	devices := slices.Clone(s.target.Devices)
	for _, m := range s.targetMounts() {
		if !slices.Contains(devices, m.Dev) {
			devices = append(devices, m.Dev)
		}
	}
	view, err := s.openView()
	if err != nil {
		return kernel.Users{}, err
	}
	defer view.Close()
	if s.hidden {
		for _, b := range s.btrfs {
			n, found, err := view.NumberOf(b.id)
			if err != nil || !found {
				return kernel.Users{}, errors.Join(errUnmounted, err)
			}
			s.asked, devices = append(s.asked, n), append(devices, n)
		}
	}
	return view.UsesOf(devices...)
}

// inspectUsers looks in /proc at the processes that the kernel's tables name, which shows a holder
// as other programs do. What /proc does not show is taken from the tables: processes outside of the
// own PID namespace, and the file systems of files that no descriptor leads to.
func (s *tableSearch) inspectUsers(ctx context.Context, users kernel.Users) error {
	s.source, s.processes, s.openSockets, s.unused = FromKernel, users.Processes, users.Sockets, users.Unused
	s.seeEverybody()
	var pids []int
	look := func(pid int) {
		if pid != 0 && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	for _, u := range users.Uses {
		look(u.Here)
	}
	for _, p := range users.Unsettled {
		look(p.Here)
		if p.Here == 0 {
			s.cannot("tables", fmt.Sprintf("process %d outside of this PID namespace", p.Process), errChanging)
		}
	}
	if err := s.inspect(ctx, pids); err != nil {
		return err
	}
	s.dropSettled(users.Unsettled)
	for _, u := range users.Deserted {
		if s.concerns(u) && s.unlisted(u.Mount) {
			s.add(desertedHolder(u.Mount))
		}
	}
	s.addUses(users.Uses)
	return nil
}

// dropSettled drops suspects: the tables say of which file system each is, but those of processes
// that changed each time that they were read.
func (s *tableSearch) dropSettled(unsettled []kernel.Process) {
	s.holders = slices.DeleteFunc(s.holders, func(h Holder) bool {
		return h.Suspect && !slices.ContainsFunc(unsettled, func(p kernel.Process) bool { return p.Here == h.PID })
	})
}

// desertedHolder is the holder of a mount in a namespace that no process is in.
func desertedHolder(m kernel.Mount) Holder {
	return Holder{Class: Namespace, Namespace: mounts.NamespaceName(m.Namespace),
		Evidence: fmt.Sprintf("the kernel's own tables: mount %d is in the namespace, which no process is in or has open", m.ID),
		Remedy:   "unmount the bind mount of this namespace, or end the process that passes a descriptor of it on"}
}

// addUses adds the holders that the tables show and /proc does not.
func (s *tableSearch) addUses(uses []kernel.Use) {
	namespaces := map[uint64]int{} // the processes in each
	for _, u := range uses {
		if !s.concerns(u) || s.shown(u) {
			continue
		}
		if u.Kind == kernel.Namespace {
			if namespaces[u.Mount.Namespace]++; namespaces[u.Mount.Namespace] > 1 {
				continue // one holder for all
			}
		}
		s.add(s.holderOf(u))
	}
	for i, h := range s.holders {
		for inode, count := range namespaces {
			if count > 1 && h.HostPID != 0 && h.Namespace == mounts.NamespaceName(inode) {
				s.holders[i].Evidence += fmt.Sprintf(" (and %d more processes)", count-1)
			}
		}
	}
}

var errChanging = errors.New("it changed each time that it was read")

// seeEverybody forgets the blind spots that the kernel's tables do not have.
func (s *tableSearch) seeEverybody() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.failures {
		if key.spot == OtherPIDNamespaces || key.spot == OtherUsers {
			delete(s.failures, key)
		}
	}
}

// concerns reports whether a use is of the target: of a mount that is held, or of a superblock that
// is. A namespace that is listed counts if a mount in it is no part of the target.
func (s *tableSearch) concerns(u kernel.Use) bool {
	held := slices.Contains(s.asked, u.Device)
	switch {
	case u.Kind == kernel.Namespace:
		return held && (s.foreign[u.Mount.Namespace] || s.unlisted(u.Mount))
	case u.Kind == kernel.FSContext || u.Mount.Namespace == 0:
		return held
	}
	return s.held[u.Mount.ID] || held && s.unlisted(u.Mount)
}

// unlisted reports whether a mount is in a namespace that could not be seen.
func (s *tableSearch) unlisted(m kernel.Mount) bool {
	_, listed := s.known[m.ID]
	return !listed
}

// shown reports whether a use needs no holder of its own: /proc has shown it, a later search names
// it, or its process has ended.
func (s *tableSearch) shown(u kernel.Use) bool {
	switch {
	case u.Here == 0:
		return false
	case u.Kind == kernel.UnixSocket: // see findForeignSockets
		return true
	case u.Kind == kernel.Namespace && s.foreign[u.Mount.Namespace]: // see findNamespaces
		return true
	case slices.ContainsFunc(s.holders, func(h Holder) bool { return h.Class == Class(u.Kind) && h.PID == u.Here }):
		return true
	}
	return gone(unix.Faccessat(s.proc, strconv.Itoa(u.Here), unix.F_OK, 0))
}

// holderOf is the holder of a use that /proc does not show.
func (s *tableSearch) holderOf(u kernel.Use) Holder {
	h := Holder{Class: Class(u.Kind), PID: u.Here, TID: u.HereThread, Comm: u.Command, Path: s.pathOf(u),
		Self: u.Here == os.Getpid(), Child: u.Here != os.Getpid() && s.family[u.Here],
		Evidence: fmt.Sprintf("the kernel's own tables: process %d (%s)", u.Process, u.Command),
		Remedy:   "close the file, or end the process"}
	if h.TID == 0 {
		h.TID = h.PID
	}
	if u.Here != u.Process {
		h.HostPID = u.Process
	}
	if u.Thread != 0 {
		h.Evidence += fmt.Sprintf(", thread %d", u.Thread)
	}
	if u.FD >= 0 {
		h.Evidence += fmt.Sprintf(", descriptor %d", u.FD)
	}
	if u.Mount.ID != 0 {
		h.Evidence += fmt.Sprintf(", mount %d", u.Mount.ID)
	}
	switch u.Kind {
	case kernel.Cwd, kernel.Root, kernel.Exe, kernel.Map:
		h.Remedy = "end the process"
	case kernel.Namespace:
		h.Namespace = mounts.NamespaceName(u.Mount.Namespace)
		h.Remedy = "unmount the target in the mount namespace of this process, or end the process"
	case kernel.FSContext:
		h.Path, h.Remedy = "anon_inode:[fscontext]", "close this file descriptor, or end the process"
	case kernel.InFlight:
		h.Remedy = "let the process receive the messages of this socket, or close the socket, or end the process"
	case kernel.IOUring:
		h.Remedy = "unregister the files of this ring (IORING_UNREGISTER_FILES), or end the process"
	}
	return h
}

// onTarget reports whether a mount shows what a use is by: it is the same mount, or one of the
// target's.
func (s *tableSearch) onTarget(m mounts.Mount, u kernel.Use) bool {
	return u.Mount.Is(m) || s.target.onDevice(m.Dev) && s.own[m.ID]
}

// pathOf returns the path of a use as the own namespace has it, or from the root of its file system.
func (s *tableSearch) pathOf(u kernel.Use) string {
	for ns, m := range s.snapshot.All {
		if ns.Own && s.onTarget(m, u) && u.Path != "" && mounts.Inside(u.Path, m.Root) {
			return filepath.Join(m.Point, strings.TrimPrefix(u.Path, m.Root))
		}
	}
	return u.Path
}
