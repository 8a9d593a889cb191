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

// ClaimHolders stand for someone else's exclusive claim on a device whose superblock does not live:
// the devices that stand on it, as the kernel shows them. It does not show which program made a
// claim: a process that alone has the device open is the one, and of several each is a suspect.
func ClaimHolders(b Block, signs Liveness) []Holder {
	if stacked, err := Sysfs("/sys").Claimers(b.Number); err == nil && len(stacked) > 0 {
		return stacked
	}
	claim := Holder{Class: BlockClaim, Path: b.Path, Evidence: signs.String(), Remedy: "close the exclusive open of the device"}
	var users []Holder
	for _, u := range deviceUsers(b.Number) {
		users = append(users, Holder{Class: BlockClaim, PID: u.task.pid, TID: u.task.pid, Comm: u.comm, Path: b.Path,
			Evidence: fmt.Sprintf("%s; the device is open in /proc/%d/fd/%d", signs, u.task.pid, u.fd),
			Remedy:   "close the exclusive open of the device, or end the process that made it"})
	}
	if len(users) == 1 {
		return users
	}
	for i := range users {
		users[i].Suspect = true
	}
	return append([]Holder{claim}, users...)
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
	w := newWalker(&scan{proc: proc, remote: map[uint64][]string{}})
	for _, m := range list {
		if isRemote(m.FSType) {
			w.scan.remote[0] = append(w.scan.remote[0], m.Point)
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

// deviceFiles returns the first descriptor of a process that is the device: no node is opened for
// that, and no driver asked.
func (w *walker) deviceFiles(pid int, n mounts.DevNum) []deviceUser {
	dir, err := rawOpen(w.scan.proc, w.file.numbered("", pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer rawClose(dir)
	t := task{pid: pid, tid: pid, dir: dir}
	var users []deviceUser
	_ = eachNumber(dir, "fd", make([]byte, 8<<10), func(fd int) {
		link, err := w.file.link(dir, w.file.numbered("fd/", fd))
		if err != nil || !strings.HasPrefix(string(link), "/") || w.target.remoteLink(t, fmt.Sprintf("fd/%d", fd)) {
			return
		}
		err = rawStatx(dir, w.file.numbered("fd/", fd), unix.STATX_TYPE, &w.file.stat)
		st := &w.file.stat
		if err == nil && len(users) == 0 && st.Mode&unix.S_IFMT == unix.S_IFBLK && n == (mounts.DevNum{Major: st.Rdev_major, Minor: st.Rdev_minor}) {
			users = append(users, deviceUser{t, fd, w.record.comm(t)})
		}
	})
	return users
}
