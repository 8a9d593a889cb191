package place

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Read reads the facts. A fact that cannot be read is reported as missing.
func Read() Facts {
	f := Facts{
		Root: os.Geteuid() == 0,
		Proc: isMounted("/proc", unix.PROC_SUPER_MAGIC), Sys: isMounted("/sys", unix.SYSFS_MAGIC),
		Null: isNull(), CPUs: runtime.NumCPU(), Denied: denied(), Namespaces: tryNamespaces(),
	}
	f.UserNamespace = f.Proc && InUserNamespace()
	status, _ := os.ReadFile("/proc/self/status") // without it there is no capability
	f.Capabilities = effective(string(status))
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		f.OpenFiles = limit.Max
	}
	meminfo, _ := os.ReadFile("/proc/meminfo") // without it the memory is unknown
	f.Memory = least(available(string(meminfo)), cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup"))
	return f
}

// InUserNamespace reports whether the process is in another user namespace than the first one
// (user_namespaces(7)), such as a rootless container's, whose root cannot mount a disk. A kernel
// without user namespaces has no list of their users.
func InUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
}

func isMounted(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == magic
}

func isNull() bool {
	var st unix.Stat_t
	return unix.Stat("/dev/null", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// effective reads the effective capabilities from /proc/PID/status.
func effective(status string) uint64 {
	for line := range strings.Lines(status) {
		if text, found := strings.CutPrefix(line, "CapEff:"); found {
			if set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64); err == nil {
				return set
			}
		}
	}
	return 0
}

// available reads the bytes of memory that can be taken from /proc/meminfo; -1 if it does not show
// them.
func available(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemAvailable:" {
			if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				return n << 10
			}
		}
	}
	return -1
}

// cgroupMemory returns the bytes that the cgroup of the process, and those above it, leave
// (cgroup-v2.rst, memory.max; page cache counts as left); -1 for no bound.
func cgroupMemory(list, root string) int64 {
	text, err := os.ReadFile(list)
	if err != nil {
		return -1
	}
	left := int64(-1)
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[0] != "0" {
			continue // of version 1, whose bound of memory has no such simple meaning
		}
		for dir := parts[2]; ; dir = filepath.Dir(dir) {
			left = least(left, leftOf(filepath.Join(root, dir)))
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return left
}

// leftOf returns the bytes that one cgroup leaves; -1 for no bound.
func leftOf(dir string) int64 {
	most, used := number(filepath.Join(dir, "memory.max")), number(filepath.Join(dir, "memory.current"))
	if most < 0 || used < 0 {
		return -1
	}
	stat, _ := os.ReadFile(filepath.Join(dir, "memory.stat")) // without it nothing counts as cache
	for line := range strings.Lines(string(stat)) {
		if text, found := strings.CutPrefix(line, "file "); found {
			if cache, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				used -= cache
			}
		}
	}
	return max(most-used, 0)
}

// number reads a file that holds a number; -1 if it holds none, such as "max".
func number(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// least returns the smaller of two amounts, of which -1 is no bound.
func least(a, b int64) int64 {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// denied tries the system calls that an installation cannot do without, with arguments that change
// nothing: a kernel that has a call, and lets it through, finds fault with its arguments.
func denied() []string {
	var names []string
	try := func(name string, err error) {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			names = append(names, name)
		}
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == nil {
		unix.Close(fd)
	}
	try("openat2", err)
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		err = unix.ENOSYS
	}
	try("statx", err)
	try("mount", unix.Mount("", "", "", 0, ""))
	try("umount2", unix.Unmount("", unix.UMOUNT_NOFOLLOW))
	try("setxattr", unix.Setxattr("", "user.x", nil, 0))
	try("linkat", unix.Linkat(unix.AT_FDCWD, "", unix.AT_FDCWD, "", 0))
	try("fchownat", unix.Fchownat(unix.AT_FDCWD, "", 0, 0, 0))
	try("setns", unix.Setns(-1, 0))
	try("pivot_root", unix.PivotRoot("", ""))
	try("syncfs", unix.Syncfs(-1))
	return names
}

// tryNamespaces makes the namespaces that a helper program gets, in a thread that ends with them.
func tryNamespaces() error {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		made <- unix.Unshare(unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	}()
	return <-made
}

// raiseFiles raises the soft limit of open files.
func raiseFiles(need uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	if limit.Cur >= need {
		return nil
	}
	limit.Cur = need
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of open files to %d: %w", need, err)
	}
	return nil
}
