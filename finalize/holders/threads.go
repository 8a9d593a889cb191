package holders

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Kinds of resources that two tasks may share, from linux/kcmp.h.
const (
	kcmpFiles = 2
	kcmpFS    = 3
)

// threads looks at the resources of single threads: a file table (CLONE_FILES left out), a working
// directory and namespace (CLONE_FS left out), and all of it when the first thread has ended and is
// a zombie.
func (w *walker) threads(leader task, leaderAlive bool) {
	tids, err := w.otherThreads(leader)
	if err != nil {
		w.record.note(leader, "task", err)
		return
	}
	files, fs := []int{leader.pid}, []int{leader.pid}
	mapped := leaderAlive
	for _, tid := range tids {
		ownFiles := differs(tid, files, kcmpFiles)
		ownFS := differs(tid, fs, kcmpFS)
		if !ownFiles && !ownFS && mapped {
			continue
		}
		if !w.thread(leader, tid, ownFiles, ownFS, !mapped) {
			continue
		}
		mapped = true
		files, fs = remember(files, tid, ownFiles), remember(fs, tid, ownFS)
	}
}

func (w *walker) otherThreads(leader task) ([]int, error) {
	var tids []int
	err := eachNumber(leader.dir, "task", w.tasks, func(tid int) {
		if tid != leader.pid {
			tids = append(tids, tid)
		}
	})
	return tids, err
}

func (w *walker) thread(leader task, tid int, files, fs, mapped bool) bool {
	name := "task/" + strconv.Itoa(tid)
	dir, err := unix.Openat(leader.dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.record.note(leader, name, err)
		return false
	}
	defer unix.Close(dir)
	t := task{pid: leader.pid, tid: tid, dir: dir}
	if fs {
		w.filesystem(t)
	}
	if files {
		w.descriptors(t)
	}
	if mapped {
		w.exe(t)
		w.maps(t)
	}
	return true
}

// rememberAtMost bounds the comparisons when every thread has something of its own.
const rememberAtMost = 8

func remember(seen []int, tid int, differs bool) []int {
	if differs && len(seen) < rememberAtMost {
		return append(seen, tid)
	}
	return seen
}

// differs reports whether a thread shares with none of the threads looked at, or the kernel does
// not answer.
func differs(tid int, seen []int, kind uintptr) bool {
	for _, other := range seen {
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(other), kind, 0, 0, 0)
		if errno == 0 && r == 0 {
			return false
		}
		if errno != 0 && !errors.Is(errno, unix.ESRCH) {
			return true
		}
	}
	return true
}
