package holders

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// fanotify looks at a group with marks on the target. Marks hold nothing; events that nobody has
// read hold the files they are about, unless the group was made to report file handles.
func (w *walker) fanotify(t task, fd int, info fdInfo) {
	group := parseFanotify(info.extra)
	if group.reportsHandles() || !w.target.marked(group) {
		return
	}
	h := Holder{Class: Fanotify, Path: "anon_inode:[fanotify]",
		Remedy:   "read the pending events, or close this file descriptor, or end the process",
		Evidence: fmt.Sprintf("%s/fdinfo/%d: %s", t.path(), fd, strings.TrimSpace(info.extra))}
	pending, err := pendingBytes(t.pid, fd)
	if err != nil {
		h.Suspect = true
		h.Evidence += fmt.Sprintf(" (cannot see whether events are pending: %v)", err)
		w.record.hit(t, h)
		return
	}
	if pending > 0 {
		h.Evidence += fmt.Sprintf(" (%d bytes of events are unread)", pending)
		w.record.hit(t, h)
	}
}

// fanotifyGroup is the description of a group in fdinfo; all numbers in it are hexadecimal, see
// proc_pid_fdinfo(5).
type fanotifyGroup struct {
	flags  uint64
	mounts []int
	devs   []mounts.DevNum
}

func (g fanotifyGroup) reportsHandles() bool {
	return g.flags&(unix.FAN_REPORT_FID|unix.FAN_REPORT_DIR_FID) != 0
}

func parseFanotify(text string) fanotifyGroup {
	var g fanotifyGroup
	for line := range strings.Lines(text) {
		fields, ok := strings.CutPrefix(line, "fanotify ")
		if !ok {
			continue
		}
		for field := range strings.FieldsSeq(fields) {
			g.set(field)
		}
	}
	return g
}

func (g *fanotifyGroup) set(field string) {
	key, value, _ := strings.Cut(field, ":")
	n, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return
	}
	switch key {
	case "flags":
		g.flags = n
	case "mnt_id":
		g.mounts = append(g.mounts, int(n))
	case "sdev": // the kernel's own form: 12 bits major, 20 bits minor
		g.devs = append(g.devs, mounts.DevNum{Major: uint32(n >> 20), Minor: uint32(n & (1<<20 - 1))})
	}
}

func (c *comparison) marked(g fanotifyGroup) bool {
	for _, id := range g.mounts {
		if c.scan.held[id] {
			return true
		}
	}
	for _, d := range g.devs {
		if c.scan.target.onDevice(d) {
			return true
		}
	}
	return false
}

// borrow duplicates a file of another process into this one, see pidfd_getfd(2).
func borrow(pid, fd int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(process)
	borrowed, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("borrowing file %d of process %d: %w", fd, pid, err)
	}
	return borrowed, nil
}

func pendingBytes(pid, fd int) (int, error) {
	borrowed, err := borrow(pid, fd)
	if err != nil {
		return 0, err
	}
	defer unix.Close(borrowed)
	n, err := unix.IoctlGetInt(borrowed, unix.TIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("asking for pending events: %w", err)
	}
	return n, nil
}
