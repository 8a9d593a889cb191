package holders

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procFile is a reader of small files of /proc that reuses one buffer.
type procFile struct {
	buf, name []byte
	stat      unix.Statx_t
}

// read returns the whole text of a file; the slice is valid until the next read.
func (p *procFile) read(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p.grow()
	return p.rest(fd, 0)
}

func (p *procFile) grow() {
	if p.buf == nil {
		p.buf = make([]byte, 64<<10)
	}
}

// rest reads to the end of a file, after the length that was read already.
func (p *procFile) rest(fd, length int) ([]byte, error) {
	for {
		if length == len(p.buf) {
			p.buf = append(p.buf, make([]byte, len(p.buf))...)
		}
		n, err := unix.Read(fd, p.buf[length:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return p.buf[:length], nil
		}
		length += n
	}
}

// readLink returns a link's text without following it.
func readLink(dir int, name string) (string, error) {
	var buf [4096]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// eachNumber calls visit for every entry of a directory whose name is a number. Entries are taken
// from raw getdents64 records, see getdents(2).
func eachNumber(dir int, name string, buf []byte, visit func(n int)) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return eachEntry(fd, buf, visit)
}

// eachEntry is eachNumber for a directory that is open.
func eachEntry(fd int, buf []byte, visit func(n int)) error {
	for {
		n, err := rawEntries(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		eachRecord(buf[:n], func(entry []byte) {
			if number, ok := decimal(entry); ok {
				visit(number)
			}
		})
	}
}

// eachRecord walks the records of one getdents64 buffer.
func eachRecord(buf []byte, visit func(name []byte)) {
	const nameAt = 19 // after d_ino, d_off, d_reclen and d_type
	for len(buf) > nameAt {
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length <= nameAt || length > len(buf) {
			return
		}
		name := buf[nameAt:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		visit(name)
		buf = buf[length:]
	}
}

func decimal(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// status is the content of /proc/PID/stat; see proc_pid_stat(5).
type status struct {
	comm   string
	state  byte
	parent int
	flags  uint64
}

const (
	flagExiting = 0x4      // PF_EXITING in linux/sched.h
	flagKThread = 0x200000 // PF_KTHREAD
)

// parseStat reads the text of /proc/PID/stat. The name may contain anything, so it ends at the last
// parenthesis.
func parseStat(text []byte) (status, error) {
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return status{}, errors.New("reading stat: no name in parentheses")
	}
	fields := strings.Fields(string(text[shut+1:]))
	if len(fields) < 7 {
		return status{}, fmt.Errorf("reading stat: %d fields after the name, want at least 7", len(fields))
	}
	parent, errParent := strconv.Atoi(fields[1])
	flags, errFlags := strconv.ParseUint(fields[6], 10, 64)
	if err := errors.Join(errParent, errFlags); err != nil {
		return status{}, fmt.Errorf("reading stat: %w", err)
	}
	return status{comm: string(text[open+1 : shut]), state: fields[0][0], parent: parent, flags: flags}, nil
}

// family returns pid and all its descendants.
func family(pid int) (map[int]bool, error) {
	var file procFile
	members, err := withDescendants(pid, func(p int) ([]int, error) { return childrenOf(&file, p) })
	if errors.Is(err, errNoChildren) {
		return familyByParents(pid)
	}
	return members, err
}

// withDescendants returns pid and all that it leads to.
func withDescendants(pid int, children func(int) ([]int, error)) (map[int]bool, error) {
	members := map[int]bool{}
	for todo := []int{pid}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if members[p] {
			continue
		}
		members[p] = true
		more, err := children(p)
		if err != nil {
			return nil, err
		}
		todo = append(todo, more...)
	}
	return members, nil
}

var errNoChildren = errors.New("the kernel does not list children (CONFIG_PROC_CHILDREN)")

// childrenOf reads the children that each thread of a process has started.
func childrenOf(file *procFile, pid int) ([]int, error) {
	dir, err := unix.Open(fmt.Sprintf("/proc/%d/task", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the threads of process %d: %w", pid, err)
	}
	defer unix.Close(dir)
	var children []int
	missing := false
	err = eachNumber(dir, ".", make([]byte, 4<<10), func(tid int) {
		text, err := file.read(dir, strconv.Itoa(tid)+"/children")
		if err != nil {
			missing = missing || unix.Faccessat(dir, strconv.Itoa(tid)+"/stat", unix.F_OK, 0) == nil
			return
		}
		for field := range bytes.FieldsSeq(text) {
			if child, ok := decimal(field); ok {
				children = append(children, child)
			}
		}
	})
	if missing {
		return nil, errNoChildren
	}
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("listing the threads of process %d: %w", pid, err)
	}
	return children, nil
}

// familyByParents asks every process for its parent.
func familyByParents(pid int) (map[int]bool, error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /proc (is it mounted?): %w", &os.PathError{Op: "open", Path: "/proc", Err: err})
	}
	defer unix.Close(proc)
	parents := map[int]int{}
	var file procFile
	err = eachNumber(proc, ".", make([]byte, 32<<10), func(p int) {
		text, err := file.read(proc, strconv.Itoa(p)+"/stat")
		if err != nil {
			return // ended meanwhile; one that hides its stat is no child of ours
		}
		if st, err := parseStat(text); err == nil {
			parents[p] = st.parent
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	return descendants(pid, parents)
}

func descendants(pid int, parents map[int]int) (map[int]bool, error) {
	children := map[int][]int{}
	for child, parent := range parents {
		children[parent] = append(children[parent], child)
	}
	return withDescendants(pid, func(p int) ([]int, error) { return children[p], nil })
}
