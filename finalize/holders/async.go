package holders

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Asynchronous returns evidence that the kernel is letting go of files by itself
// and late, with no process left that could be named: workers that take an
// io_uring down, some tens of milliseconds after its last process has ended. A
// worker keeps the name for a while when it is done.
func Asynchronous() ([]string, error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /proc: %w", err)
	}
	defer unix.Close(proc)
	var found []string
	var file procFile
	err = eachNumber(proc, ".", make([]byte, 32<<10), func(pid int) {
		name := strconv.Itoa(pid) + "/comm"
		text, err := file.read(proc, name)
		if comm := strings.TrimSuffix(string(text), "\n"); err == nil && takesRingDown(comm) {
			found = append(found, fmt.Sprintf("/proc/%s: %s", name, comm))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing kernel workers: %w", err)
	}
	return found, nil
}

// takesRingDown knows the work queue of io_uring's exit work, after a "+" while a
// worker is at it and a "-" afterwards.
func takesRingDown(comm string) bool {
	return strings.HasPrefix(comm, "kworker/") && (strings.HasSuffix(comm, "+iou_exit") || strings.HasSuffix(comm, "-iou_exit"))
}
