// Package place judges the machine, or the container, that an installation runs in: whether it has
// all that the installation needs until its end, so that none of that is missed after the first
// write.
//
// The package holds facts about the running process and kernel, and the needs of an installation.
// The target, the image, and the programs that an installation runs belong elsewhere.
package place

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts describe the place. [Read] reads them; the verdict depends on nothing else.
type Facts struct {
	Root          bool     // of some user namespace
	UserNamespace bool     // which is not the first one
	Capabilities  uint64   // effective, a bit each
	Proc, Sys     bool     // /proc and /sys are those of the kernel
	Null          bool     // /dev/null is the device
	OpenFiles     uint64   // that the process may have, by the hard limit
	CPUs          int      // that it may use
	Memory        int64    // bytes that it may still take; -1 = unknown
	Denied        []string // system calls that the kernel does not have, or a filter refuses
	Namespaces    error    // why no namespaces can be made for a helper program
}

// Job is a kind of installation.
type Job int

// The kinds.
const (
	ToDisk       Job = iota // makes nodes, loop devices and file systems
	ToFilesystem            // works on mounts that are there
)

// Lack is something that a place does not have.
type Lack struct {
	Text   string
	Remedy string
}

// UnfitError refuses a place before anything is written.
type UnfitError struct{ Lacks []Lack }

func (e *UnfitError) Error() string {
	texts := make([]string, len(e.Lacks))
	for i, l := range e.Lacks {
		texts[i] = l.Text
	}
	return "an installation cannot run here: " + strings.Join(texts, "; ")
}

// Advice lists the remedies, each once.
func (e *UnfitError) Advice() string {
	var list []string
	seen := map[string]bool{}
	for _, l := range e.Lacks {
		if !seen[l.Remedy] {
			seen[l.Remedy] = true
			list = append(list, l.Remedy)
		}
	}
	return strings.Join(list, "; ")
}

// Remedies.
const (
	privileged = "run the container with --privileged"
	morePlace  = "give it more memory"
)

// capabilities that an installation needs, by their number (capabilities(7)).
var capabilities = []struct {
	number int
	name   string
	disk   bool // only for a disk
}{
	{unix.CAP_CHOWN, "CAP_CHOWN", false},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", false},
	{unix.CAP_FOWNER, "CAP_FOWNER", false},
	{unix.CAP_FSETID, "CAP_FSETID", false},
	{unix.CAP_LINUX_IMMUTABLE, "CAP_LINUX_IMMUTABLE", false},
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", false},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", false},
	{unix.CAP_MKNOD, "CAP_MKNOD", true},
	{unix.CAP_SETFCAP, "CAP_SETFCAP", false},
}

// leastMemory is the memory of an installation of a small image, in bytes.
const leastMemory = 96 << 20

// NeededFiles returns how many files an installation has open at a time at most: the directories of
// the object store, two files for each of the workers on each processor that import, check out and
// look for holders, and some others.
func NeededFiles(cpus int) uint64 {
	const objectDirs, perCPU, others = 256, 8, 48
	return uint64(objectDirs + perCPU*cpus + others)
}

// Missing returns the needs of a job that the place does not meet.
func (f Facts) Missing(job Job) []Lack {
	var lacks []Lack
	add := func(lacking bool, remedy, format string, args ...any) {
		if lacking {
			lacks = append(lacks, Lack{fmt.Sprintf(format, args...), remedy})
		}
	}
	add(!f.Proc, "mount /proc: mount -t proc proc /proc", "/proc is not mounted")
	add(!f.Sys, "mount /sys: mount -t sysfs sysfs /sys", "/sys is not mounted")
	add(!f.Null, "make it: mknod -m 666 /dev/null c 1 3", "/dev/null is missing")
	add(f.Root && f.UserNamespace, "run it as root of the machine, not in a rootless container or another user namespace",
		"root of a user namespace can neither mount disks nor keep the owners of files")
	if names := f.missingCapabilities(job); len(names) > 0 && f.Proc {
		add(true, privileged, "the process lacks %s", strings.Join(names, ", "))
	}
	add(len(f.Denied) > 0, privileged+", on Linux 5.8 or later", "the kernel, or a seccomp filter, refuses the system calls %s", strings.Join(f.Denied, ", "))
	add(f.Namespaces != nil, privileged+", and see the sysctl user.max_pid_namespaces and the like",
		"no namespaces can be made for helper programs: %v", f.Namespaces)
	need := NeededFiles(f.CPUs)
	add(f.OpenFiles < need, fmt.Sprintf("raise the limit: ulimit -Hn %d", need),
		"a process may have %d files open, and the installation needs %d", f.OpenFiles, need)
	add(f.Memory >= 0 && f.Memory < leastMemory, morePlace,
		"%d MiB of memory are available, and the installation needs %d", f.Memory>>20, leastMemory>>20)
	return lacks
}

func (f Facts) missingCapabilities(job Job) []string {
	var names []string
	for _, c := range capabilities {
		if f.Capabilities&(1<<c.number) == 0 && (job == ToDisk || !c.disk) {
			names = append(names, c.name)
		}
	}
	return names
}

// Check refuses a place that a job cannot be done in, and raises the soft limit of open files to
// the need of the job.
func Check(job Job) error {
	f := Read()
	if lacks := f.Missing(job); len(lacks) > 0 {
		return &UnfitError{lacks}
	}
	return raiseFiles(NeededFiles(f.CPUs))
}
