package block

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Processes lists the processes, by their number.
func (h Host) Processes() ([]int, error) {
	pids, err := numbers(h.Proc)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	return pids, nil
}

// Comm returns the name of a process, for messages.
func (h Host) Comm(pid int) string {
	name, err := Attribute(filepath.Join(h.Proc, strconv.Itoa(pid)), "comm")
	if err != nil {
		return "ended"
	}
	return name
}

// Opener is a process that has a block device open.
type Opener struct {
	PID  int
	Comm string
	FD   string // one descriptor, as a path of /proc
}

func (o Opener) String() string { return fmt.Sprintf("process %d (%s)", o.PID, o.Comm) }

// Openers returns the processes that show an open descriptor of a block device. One that hides its
// descriptors from this process is left out.
func (h Host) Openers(n Number) ([]Opener, error) {
	pids, err := h.Processes()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(h.Proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	remote, err := mountinfo.GetMountsFromReader(f, func(m *mountinfo.Info) (skip, stop bool) { return !IsRemote(m.FSType), false })
	if err != nil {
		return nil, fmt.Errorf("looking for network file systems: %w", err)
	}
	var found []Opener
	for _, pid := range pids {
		if fd := h.descriptor(pid, n, remote); fd != "" {
			found = append(found, Opener{PID: pid, Comm: h.Comm(pid), FD: fd})
		}
	}
	return found, nil
}

// descriptor returns a descriptor of a device that a process has, in any of its threads: a thread
// may have a table of its own. It returns "" if it shows none.
func (h Host) descriptor(pid int, n Number, remote []*mountinfo.Info) string {
	tasks := filepath.Join(h.Proc, strconv.Itoa(pid), "task")
	tids, _ := numbers(tasks) // none for a process that has ended
	for _, tid := range tids {
		dir := filepath.Join(tasks, strconv.Itoa(tid), "fd")
		fds, _ := numbers(dir) // none for a thread that has ended, or hides them
		for _, fd := range fds {
			if link := filepath.Join(dir, strconv.Itoa(fd)); leadsTo(link, n, remote) {
				return link
			}
		}
	}
	return ""
}

// leadsTo reports whether a descriptor is a device. Its link is followed only where it shows no
// path on a network file system, whose server may never answer.
func leadsTo(link string, n Number, remote []*mountinfo.Info) bool {
	path, err := os.Readlink(link)
	if err != nil || !filepath.IsAbs(path) {
		return false
	}
	for _, m := range remote {
		if path == m.Mountpoint || strings.HasPrefix(path, strings.TrimSuffix(m.Mountpoint, "/")+"/") {
			return false
		}
	}
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && Number{st.Rdev_major, st.Rdev_minor} == n
}

// IsRemote reports whether files of a file system may need a server's answer.
func IsRemote(fsType string) bool {
	switch fsType {
	case "nfs", "nfs4", "9p", "cifs", "smb3", "ceph", "afs":
		return true
	}
	return false
}

// numbers lists the entries of a directory of /proc whose names are numbers.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list, nil
}
