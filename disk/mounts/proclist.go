package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"installer/disk/block"

	"golang.org/x/sys/unix"
)

// addFromProc adds the namespaces that some task is in, reading the mounts of each once. Namespaces
// that only a file descriptor or a bind mount keeps are not seen this way.
func (s *Snapshot) addFromProc(ctx context.Context) error {
	pids, err := block.Live().Processes()
	if err != nil {
		return fmt.Errorf("collecting mount namespaces: %w", err)
	}
	seen := map[uint64]bool{s.Own().Inode: true}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.addTasks(filepath.Join("/proc", strconv.Itoa(pid), "task"), seen)
	}
	return nil
}

func (s *Snapshot) addTasks(dir string, seen map[uint64]bool) {
	tasks, err := os.ReadDir(dir)
	if err != nil {
		s.cannot(dir, err)
		return
	}
	for _, task := range tasks {
		s.addTask(filepath.Join(dir, task.Name()), seen)
	}
}

func (s *Snapshot) addTask(dir string, seen map[uint64]bool) {
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/mnt", &st); err != nil {
		s.cannot(dir+"/ns/mnt", err)
		return
	}
	if seen[st.Ino] {
		return
	}
	f, err := os.Open(dir + "/mountinfo")
	if err != nil {
		s.cannot(dir+"/mountinfo", err)
		return
	}
	defer f.Close()
	list, err := Parse(f)
	if err != nil {
		s.cannot(dir+"/mountinfo", err)
		return
	}
	seen[st.Ino] = true
	s.Namespaces = append(s.Namespaces, Namespace{Inode: st.Ino, Mounts: list})
}

// cannot records a failure to read a task; that the task has ended is none.
func (s *Snapshot) cannot(path string, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return
	}
	s.Unreadable = append(s.Unreadable, fmt.Sprintf("%s: %v", path, err))
}
