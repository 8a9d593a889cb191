package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// Liveness holds the signs that the superblock of a device is alive in the kernel. All of it is
// there while it lives, and none once it is gone.
type Liveness struct {
	// Claimed says that an exclusive open of the device was refused: a superblock, or another
	// exclusive user, has it.
	Claimed bool `json:"claimed"`
	// Entries are the kernel's own entries for the file system, in sysfs and procfs.
	Entries []string `json:"entries,omitempty"`
	// Threads are the kernel threads that serve it.
	Threads []string `json:"threads,omitempty"`
	// Account is the kernel's own record of the superblock, where it lives and could be read.
	Account *kernel.Account `json:"account,omitempty"`
}

// Alive reports whether the superblock lives. An exclusive claim alone is somebody else's; a thread
// alone is about to end.
func (l Liveness) Alive() bool { return len(l.Entries) > 0 }

// String describes the signs.
func (l Liveness) String() string {
	claim := "the device opens exclusively"
	if l.Claimed {
		claim = "the device refuses an exclusive open (EBUSY)"
	}
	if len(l.Entries) == 0 && len(l.Threads) == 0 {
		return claim + ", the kernel has no entry for the file system"
	}
	text := fmt.Sprintf("%s, the kernel has %s", claim, strings.Join(slices.Concat(l.Entries, l.Threads), ", "))
	if l.Account != nil {
		text += " (" + l.Account.String() + ")"
	}
	return text
}

// addAccount reads the kernel's own record of a superblock that lives. The number of a btrfs is not
// that of its devices.
func (l *Liveness) addAccount(n mounts.DevNum) {
	view, err := kernel.OpenView()
	if err != nil {
		return
	}
	defer view.Close()
	if list, err := listBtrfs(); err == nil {
		for _, b := range list {
			if number, found, err := view.NumberOf(b.id); err == nil && found && slices.Contains(b.devices, n) {
				n = number
			}
		}
	}
	if a, found, err := view.Account(n); err == nil && found {
		l.Account = &a
	}
}

// Block is a block device.
type Block struct {
	Path   string // a node to open it by
	Number mounts.DevNum
}

// SuperBlock looks for signs of life of the device's superblock. It opens the device, and neither
// reads nor writes it.
func SuperBlock(b Block) (Liveness, error) {
	claimed, err := isClaimed(b)
	if err != nil {
		return Liveness{}, err
	}
	entries, threads, err := kernelSigns(b.Number)
	l := Liveness{Claimed: claimed, Entries: entries, Threads: threads}
	if err == nil && l.Alive() {
		l.addAccount(b.Number)
	}
	return l, err
}

// errOtherDevice says that a node is another device's.
var errOtherDevice = errors.New("the node is another device's")

// isClaimed reports whether an exclusive open of a device is refused.
func isClaimed(b Block) (bool, error) {
	fd, err := unix.Open(b.Path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		fd, err = unix.Open(b.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the device exclusively: %w", &os.PathError{Op: "open", Path: b.Path, Err: err})
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, fmt.Errorf("reading the number of %s: %w", b.Path, err)
	}
	if n := (block.Split(st.Rdev)); n != b.Number {
		return false, fmt.Errorf("opening the device exclusively: %w: %s is device %s, not %s", errOtherDevice, b.Path, n, b.Number)
	}
	return false, nil
}

// kernelSigns returns the kernel's own entries for a file system on a device, whatever its type,
// and the threads that serve it. They are named by the device, so that nothing is read from it.
func kernelSigns(n mounts.DevNum) (entries, threads []string, err error) {
	name, err := Sysfs("/sys").Name(n)
	if err != nil {
		return nil, nil, err
	}
	for _, pattern := range []string{
		"/sys/fs/xfs/%s", "/sys/fs/ext4/%s", "/proc/fs/ext4/%s", "/proc/fs/jbd2/%s-*", "/sys/fs/btrfs/*/devices/%s",
		"/sys/fs/f2fs/%s", "/sys/fs/nilfs2/%s", "/sys/fs/erofs/%s", "/proc/fs/ntfs3/%s",
	} {
		list, err := filepath.Glob(fmt.Sprintf(pattern, name))
		if err != nil {
			return nil, nil, fmt.Errorf("looking for the kernel's entry of the file system: %w", err)
		}
		entries = append(entries, list...)
	}
	threads, err = kernelThreads(name)
	return entries, threads, err
}

// kernelThreads returns the kernel threads that carry the device's name. Ordinary workers
// (kworker/0:1...) keep such names for a while and count for nothing.
func kernelThreads(name string) ([]string, error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /proc: %w", err)
	}
	defer unix.Close(proc)
	var found []string
	var file procFile
	err = eachNumber(proc, ".", make([]byte, 32<<10), func(pid int) {
		p := strconv.Itoa(pid)
		text, err := file.read(proc, p+"/comm")
		if err != nil || !servesDevice(strings.TrimSuffix(string(text), "\n"), name) {
			return
		}
		comm := strings.TrimSuffix(string(text), "\n")
		text, err = file.read(proc, p+"/stat")
		if err != nil {
			return
		}
		if st, err := parseStat(text); err == nil && st.flags&flagKThread != 0 && st.flags&flagExiting == 0 {
			found = append(found, "kernel thread "+comm)
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing kernel threads: %w", err)
	}
	return found, nil
}

func servesDevice(comm, name string) bool {
	if comm == "xfsaild/"+name || strings.HasPrefix(comm, "jbd2/"+name+"-") {
		return true
	}
	return strings.HasPrefix(comm, "kworker/R-") && strings.HasSuffix(comm, "/"+name)
}
