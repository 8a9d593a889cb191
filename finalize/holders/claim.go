package holders

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// ClaimHolder stands for someone else's exclusive claim on a device whose super
// block does not live. The kernel does not tell who made the claim; the processes
// that have the device open are named, and when it is one alone, it is the one.
func ClaimHolder(b Block, signs Liveness) Holder {
	h := Holder{Class: BlockClaim, Path: b.Path, Evidence: signs.String(),
		Remedy: "end what has opened the device exclusively (see /sys/class/block/*/holders for devices that are stacked on it)"}
	users := deviceUsers(b.Number)
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = fmt.Sprintf("/proc/%d/fd/%d (%s)", u.task.pid, u.fd, u.comm)
	}
	if len(users) > 0 {
		h.Evidence += "; open in " + strings.Join(names, ", ")
		h.Remedy = "close the exclusive open of the device, or end the process that made it"
	}
	if pids := slices.CompactFunc(users, func(a, b deviceUser) bool { return a.task.pid == b.task.pid }); len(pids) == 1 {
		h.PID, h.TID, h.Comm = pids[0].task.pid, pids[0].task.pid, pids[0].comm
	}
	return h
}

// deviceUser is a process that has a device open.
type deviceUser struct {
	task task
	fd   int
	comm string
}

// deviceUsers returns who else has a block device open, as far as can be seen.
func deviceUsers(n mounts.DevNum) []deviceUser {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(proc)
	list, err := mounts.OwnMounts()
	if err != nil {
		return nil
	}
	var users []deviceUser
	w := walker{scan: &scan{proc: proc, remote: map[uint64][]string{}}}
	for _, m := range list {
		if isRemote(m.FSType) {
			w.remote[0] = append(w.remote[0], m.Point)
		}
	}
	_ = eachNumber(proc, ".", make([]byte, 32<<10), func(pid int) {
		if pid != os.Getpid() {
			users = append(users, w.deviceFiles(pid, n)...)
		}
	})
	slices.SortFunc(users, func(a, b deviceUser) int {
		return cmp.Or(cmp.Compare(a.task.pid, b.task.pid), cmp.Compare(a.fd, b.fd))
	})
	return users
}

// deviceFiles returns the descriptors of a process that are the device: no node is
// opened for that, and no driver asked.
func (w *walker) deviceFiles(pid int, n mounts.DevNum) []deviceUser {
	dir, err := rawOpen(w.proc, w.file.numbered("", pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer rawClose(dir)
	t := task{pid: pid, tid: pid, dir: dir}
	var users []deviceUser
	_ = eachNumber(dir, "fd", make([]byte, 8<<10), func(fd int) {
		link, err := w.file.link(dir, w.file.numbered("fd/", fd))
		if err != nil || !strings.HasPrefix(string(link), "/") || w.remoteLink(t, fmt.Sprintf("fd/%d", fd)) {
			return
		}
		err = rawStatx(dir, w.file.numbered("fd/", fd), unix.STATX_TYPE, &w.file.stat)
		st := &w.file.stat
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && n == (mounts.DevNum{Major: st.Rdev_major, Minor: st.Rdev_minor}) {
			users = append(users, deviceUser{t, fd, w.comm(t)})
		}
	})
	return users
}
