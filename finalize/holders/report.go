package holders

import (
	"fmt"
	"slices"
	"strings"
)

// Class says in which way something holds a target.
type Class string

// The classes of holders.
const (
	FD            Class = "fd"             // an open file, O_PATH and deleted ones included
	Map           Class = "map"            // a mapped file; needs no open file descriptor
	Cwd           Class = "cwd"            // a working directory
	Root          Class = "root"           // a root directory, see chroot(2)
	Exe           Class = "exe"            // a running program
	MountClass    Class = "mount"          // a nested, bind or cloned mount, in any namespace
	Namespace     Class = "namespace"      // a mount namespace that is kept and holds such a mount
	DetachedMount Class = "detached-mount" // a mount that is in no namespace
	Loop          Class = "loop"           // a loop device on a file of the target
	Swap          Class = "swap"           // a swap file or swap device
	Overlay       Class = "overlay"        // an overlay with a layer on the target
	FileImage     Class = "file-image"     // a file system mounted straight from a file of the target
	Fanotify      Class = "fanotify"       // a fanotify group with unread events
	UnixSocket    Class = "unix-socket"    // a socket bound to a name on the target
	InFlight      Class = "in-flight"      // file descriptors under way in a socket
	IOUring       Class = "io-uring"       // files registered in an io_uring
	Binfmt        Class = "binfmt"         // an interpreter kept open by binfmt_misc
	Uprobe        Class = "uprobe"         // a probe on a file of the target
	FSContext     Class = "fs-context"     // an fs context, see fspick(2)
	Frozen        Class = "frozen"         // a freeze that nobody has thawed
	BlockClaim    Class = "block-claim"    // someone else's exclusive claim on the device
	OutOfSight    Class = "out-of-sight"   // something in a place that could not be searched
	Kernel        Class = "kernel"         // the kernel itself, with no holder in user space
)

// Holder is one thing that keeps the target alive.
type Holder struct {
	Class Class `json:"class"`
	PID   int   `json:"pid,omitempty"` // 0 when no process is concerned
	TID   int   `json:"tid,omitempty"` // the thread, when it is not the whole process
	// HostPID is the process's number in the first PID namespace, where that is not PID.
	HostPID   int    `json:"host_pid,omitempty"`
	Comm      string `json:"comm,omitempty"`
	Path      string `json:"path,omitempty"` // as the kernel shows it; may lack its prefix
	Namespace string `json:"namespace,omitempty"`
	Evidence  string `json:"evidence"`          // the file and the line of it that shows the holder
	Self      bool   `json:"self"`              // this very process
	Child     bool   `json:"child,omitempty"`   // a descendant of this process
	Suspect   bool   `json:"suspect,omitempty"` // may hold the target; the kernel does not say which one it holds
	Remedy    string `json:"remedy"`
}

// String describes the holder for people, with the evidence and the remedy.
func (h Holder) String() string {
	var b strings.Builder
	b.WriteString(string(h.Class))
	if h.Suspect {
		b.WriteString(" (suspect)")
	}
	if h.PID != 0 {
		fmt.Fprintf(&b, " by process %d", h.PID)
		if h.TID != 0 && h.TID != h.PID {
			fmt.Fprintf(&b, " thread %d", h.TID)
		}
		fmt.Fprintf(&b, " (%s%s)", h.Comm, h.relation())
	}
	if h.PID == 0 && h.HostPID != 0 {
		fmt.Fprintf(&b, " by process %d outside of this PID namespace (%s)", h.HostPID, h.Comm)
	}
	if h.Path != "" {
		fmt.Fprintf(&b, " on %q", h.Path)
	}
	if h.Namespace != "" {
		fmt.Fprintf(&b, " in %s", h.Namespace)
	}
	fmt.Fprintf(&b, " [%s]; to do: %s", h.Evidence, h.Remedy)
	return b.String()
}

func (h Holder) relation() string {
	switch {
	case h.Self:
		return ", this process"
	case h.Child:
		return ", started by this process"
	}
	return ""
}

// Verdict sums a report up.
type Verdict string

// The verdicts. Unknown means that no holder was found but something could not be read, or is a
// suspect: that is not the same as free.
const (
	Free       Verdict = "free"
	Held       Verdict = "held"
	KernelHeld Verdict = "kernel-held"
	Unknown    Verdict = "unknown"
)

// Version is the version of the JSON form of Report. Fields may be added within a version; none is
// renamed or removed.
const Version = 1

// Report is the outcome of a scan.
type Report struct {
	Version    int      `json:"version"`
	Target     Target   `json:"target"`
	Verdict    Verdict  `json:"verdict"`
	Holders    []Holder `json:"holders"`
	Searched   []Class  `json:"searched"`             // the classes that were looked for
	Unreadable []string `json:"unreadable,omitempty"` // the members of Unseen, as text
	Processes  int      `json:"processes"`            // how many were looked at
	Namespaces int      `json:"namespaces"`           // how many mount namespaces were looked at
	// UnownedSockets is how many unix sockets are open in no process that could be read: they are
	// under way in another socket. When nobody can receive them, the kernel frees them late, see
	// unix(7), and the files that they carry stay in use so long.
	UnownedSockets int `json:"unowned_sockets,omitempty"`
	// Unseen is Unreadable by kind.
	Unseen []Unseen `json:"unseen,omitempty"`
	// Probed is the kernel's answer to the question whether anything refers to the mount; empty
	// when it was not asked, or did not answer.
	Probed Answer `json:"probed,omitempty"`
	// Source says from where the processes are known, Fallback why it is not the kernel's own
	// tables.
	Source   Source `json:"source,omitempty"`
	Fallback string `json:"fallback,omitempty"`
	// References are those that the kernel's own tables have, where these were read.
	References []string `json:"references,omitempty"`
	// proven reports that the kernel's own tables have no reference to the file systems.
	proven bool
}

// Source is a source of evidence about processes.
type Source string

// The sources. The kernel's own tables have the processes of all PID namespaces.
const (
	FromKernel Source = "kernel"
	FromProc   Source = "proc"
)

// Answer is an answer of the kernel's.
type Answer string

// The answers.
const (
	IsReferenced Answer = "referenced"
	Unreferenced Answer = "unreferenced"
)

// Certain returns the holders that are no mere suspects.
func (r *Report) Certain() []Holder {
	var list []Holder
	for _, h := range r.Holders {
		if !h.Suspect {
			list = append(list, h)
		}
	}
	return list
}

func (r *Report) judge() {
	switch {
	case len(r.Certain()) > 0:
		r.Verdict = Held
		if slices.ContainsFunc(r.Holders, func(h Holder) bool { return h.Class == Kernel }) {
			r.Verdict = KernelHeld
		}
	case r.proven && len(r.Holders) == 0:
		r.Verdict = Free
	case len(r.Unreadable) > 0 || len(r.Holders) > 0:
		r.Verdict = Unknown
	default:
		r.Verdict = Free
	}
}
