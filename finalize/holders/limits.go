package holders

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// BlindSpot is a kind of things that a search could not see.
type BlindSpot string

// The blind spots.
const (
	OtherPIDNamespaces BlindSpot = "pid-namespaces"   // processes outside of this process's PID namespace
	OtherUsers         BlindSpot = "users"            // processes that only root may look at
	OtherNamespaces    BlindSpot = "mount-namespaces" // mount namespaces that the kernel does not list to this process
	OldKernel          BlindSpot = "old-kernel"       // mount namespaces without a process, which a kernel before Linux 6.12 lists to nobody
	Processes          BlindSpot = "processes"        // a part of a process that could not be read
	Devices            BlindSpot = "devices"          // a block device that could not be read
	Answers            BlindSpot = "answers"          // a question that the kernel did not answer
	Tables             BlindSpot = "tables"           // the kernel's own table of a file system's mounts
)

// Unseen is something that a search could not see.
type Unseen struct {
	Spot    BlindSpot `json:"spot"`
	Subject string    `json:"subject"` // the first of its kind
	Reason  string    `json:"reason,omitempty"`
	Count   int       `json:"count"`
	// Processes are those that it concerns, at most the first few.
	Processes []int `json:"processes,omitempty"`
}

// String returns the subject, the reason, and how many more there are.
func (u Unseen) String() string {
	text := u.Subject
	if u.Reason != "" {
		text += ": " + u.Reason
	}
	if u.Count > 1 {
		text += fmt.Sprintf(" (and %d more)", u.Count-1)
	}
	return text
}

// Remedy returns advice on how to see it. It is made for the machine that the search ran on; a
// caller that knows its place better, as inside of a virtual machine, has Spot to go by.
func (u Unseen) Remedy() string {
	switch u.Spot {
	case OtherPIDNamespaces:
		return "run in the PID namespace of the host, in a container with --pid=host"
	case OtherUsers, Processes:
		return "run as root with all capabilities"
	case OtherNamespaces:
		return "run as root, in a container with --privileged --pid=host"
	case OldKernel:
		return "run on Linux 6.12 or newer, which lists all mount namespaces"
	case Tables:
		return "run as root with CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, on a kernel that has /sys/kernel/btf/vmlinux"
	case Devices:
		return "give it the devices of the host, in a container with -v /dev:/dev"
	}
	return "run it again"
}

// Blind reports whether the search could not see things of a kind.
func (r *Report) Blind(spot BlindSpot) bool {
	return slices.ContainsFunc(r.Unseen, func(u Unseen) bool { return u.Spot == spot })
}

func (r *Report) unseen(list ...Unseen) {
	for _, u := range list {
		r.Unseen, r.Unreadable = append(r.Unseen, u), append(r.Unreadable, u.String())
	}
}

// failureKey is the key by which failures are counted.
type failureKey struct {
	spot BlindSpot
	kind string
}

// cannot records that something of a process could not be read. That a process or thread has ended
// meanwhile is no failure: its files went with it.
func (s *scan) cannot(kind, where string, err error) { s.notSeen(Processes, kind, where, err) }

func (s *scan) notSeen(spot BlindSpot, kind, where string, err error) {
	if gone(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := failureKey{spot, kind}
	f := s.failures[key]
	if f == nil { // the first one is shown
		f = &Unseen{Spot: spot, Subject: kind + " of " + where, Reason: err.Error()}
		s.failures[key] = f
	}
	f.Count++
	var pid int
	if _, err := fmt.Sscanf(where, "/proc/%d", &pid); err == nil && !slices.Contains(f.Processes, pid) && len(f.Processes) < processesShown {
		f.Processes = append(f.Processes, pid)
	}
}

// processesShown bounds the list of processes of one kind.
const processesShown = 20

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// unseen returns the blind spots in an order that does not depend on the workers.
func (s *scan) unseen() []Unseen {
	var list []Unseen
	for _, f := range s.failures {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Unseen) int {
		return cmp.Or(cmp.Compare(a.Spot, b.Spot), cmp.Compare(a.Subject, b.Subject))
	})
	if err := s.snapshot.Unlisted; err != nil {
		u := Unseen{Spot: OldKernel, Subject: "mount namespaces without a process", Reason: err.Error(), Count: 1}
		if errors.Is(err, fs.ErrPermission) {
			u.Spot = OtherNamespaces
		}
		list = append(list, u)
	}
	for _, text := range s.snapshot.Unreadable {
		list = append(list, Unseen{Spot: OtherNamespaces, Subject: text, Count: 1})
	}
	return list
}

// initialPIDNamespace is the inode of the first PID namespace's file, PROC_PID_INIT_INO in
// linux/proc_ns.h.
const initialPIDNamespace = 0xEFFFFFFC

// noteLimits records the blind spots that follow from the situation of this process.
func (s *scan) noteLimits() {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		s.cannot("PID namespace", "this process", err)
		return
	}
	if st.Ino != initialPIDNamespace {
		s.notSeen(OtherPIDNamespaces, "processes", "the host", errors.New(
			"this process is in a PID namespace of its own and sees only the processes in it"))
	}
	if os.Geteuid() != 0 {
		s.notSeen(OtherUsers, "processes", "other users", errors.New("not running as root"))
	}
}
