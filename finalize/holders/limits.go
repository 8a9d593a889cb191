package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// failure counts what could not be read of one kind.
type failure struct {
	count int
	first string
	err   error
}

// cannot records that something could not be read. That a process or thread
// has ended meanwhile is no failure: what it held went with it.
func (s *scan) cannot(kind, where string, err error) {
	if gone(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failures[kind]
	if f == nil {
		f = &failure{first: where, err: err}
		s.failures[kind] = f
	}
	f.count++
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func (s *scan) unreadable() []string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(s.failures)) {
		f := s.failures[kind]
		line := fmt.Sprintf("%s of %s: %v", kind, f.first, f.err)
		if f.count > 1 {
			line += fmt.Sprintf(" (and %d more)", f.count-1)
		}
		list = append(list, line)
	}
	return list
}

// initialPIDNamespace is the inode of the first PID namespace's file,
// PROC_PID_INIT_INO in linux/proc_ns.h.
const initialPIDNamespace = 0xEFFFFFFC

// noteLimits records what the process cannot see by its very situation.
func (s *scan) noteLimits() {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		s.cannot("PID namespace", "this process", err)
		return
	}
	if st.Ino != initialPIDNamespace {
		s.cannot("processes", "the host", errors.New(
			"this process is in a PID namespace of its own and sees only the processes in it (in a container, run with --pid=host)"))
	}
	if os.Geteuid() != 0 {
		s.cannot("processes", "other users", errors.New("not running as root"))
	}
}
