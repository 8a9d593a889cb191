package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// workspaceDir is where the installer mounts its private tmpfs.
const workspaceDir = "/run/installer"

// grace is how long the kernel gets to take down what a killed process had.
const grace = 20 * time.Second

func itoa(n int) string    { return strconv.Itoa(n) }
func atoi(s string) int    { n, _ := strconv.Atoi(s); return n }
func text(p string) string { b, _ := os.ReadFile(p); return strings.TrimSpace(string(b)) }

type process struct{ pid, line string }

func processes() (all []process) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		line := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
		all = append(all, process{filepath.Base(filepath.Dir(name)), line})
	}
	return all
}

// nothingLeft looks for whatever a run could leave behind, everywhere.
func (t *trial) nothingLeft() {
	deadline := time.Now().Add(grace)
	for {
		left := t.left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, l := range left {
				t.breach("left behind: %s", l)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (t *trial) left() (left []string) {
	left = append(left, loopsOn(t.dir)...)
	left = append(left, mountsOf(t.dir)...)
	left = append(left, t.processesLeft()...)
	if entries, err := os.ReadDir(workspaceDir); err == nil && len(entries) > 0 {
		left = append(left, fmt.Sprintf("%s in %s", entries[0].Name(), workspaceDir))
	}
	for dir, known := range map[string][]string{t.tmp: nil, t.dir: t.known} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if !slices.Contains(known, e.Name()) {
				left = append(left, "file "+filepath.Join(dir, e.Name()))
			}
		}
	}
	return append(left, t.locks()...)
}

// loopsOn lists the loop devices on files below dir, and their partitions. A mount in a namespace that no process is in
// keeps its device, too.
func loopsOn(dir string) (found []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if backing := text(f); strings.HasPrefix(backing, dir+"/") {
			name := filepath.Base(filepath.Dir(filepath.Dir(f)))
			found = append(found, fmt.Sprintf("loop device %s on %s", name, backing))
			parts, _ := filepath.Glob("/sys/block/" + name + "/" + name + "p*")
			for _, p := range parts {
				found = append(found, "partition "+filepath.Base(p))
			}
		}
	}
	return found
}

// mountsOf lists, in every mount namespace that a process is in, the mounts of the loop devices on files below dir; in
// this one also those of the installer's workspace.
func mountsOf(dir string) (found []string) {
	devices := map[string]bool{}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if strings.HasPrefix(text(f), dir+"/") {
			devices[text(filepath.Join(filepath.Dir(filepath.Dir(f)), "dev"))] = true
		}
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{}
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		pid := filepath.Base(filepath.Dir(table))
		ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt")
		if seen[ns] || len(devices) == 0 && ns != own {
			continue
		}
		seen[ns] = true
		for line := range strings.SplitSeq(text(table), "\n") {
			fields := strings.Fields(line)
			if len(fields) > 4 && (devices[fields[2]] || ns == own && strings.HasPrefix(fields[4], workspaceDir)) {
				found = append(found, fmt.Sprintf("mount in %s (process %s): %s", ns, pid, line))
			}
		}
	}
	return found
}

// processesLeft lists installers on the disk of the trial, and orphans.
func (t *trial) processesLeft() (found []string) {
	for _, p := range processes() {
		switch {
		case p.pid == itoa(os.Getpid()):
		case strings.Contains(p.line, t.dir+"/"):
			found = append(found, "process "+p.pid+": "+p.line)
		case orphan(p.pid):
			found = append(found, "orphan "+p.pid+": "+p.line)
		}
	}
	return found
}

// orphan tells whether a process is a child of this one; it is asked only while none that was started here runs. A
// zombie is reaped.
func orphan(pid string) bool {
	_, rest, _ := strings.Cut(text("/proc/"+pid+"/stat"), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != itoa(os.Getpid()) {
		return false
	}
	if fields[0] == "Z" {
		_, _ = unix.Wait4(atoi(pid), nil, unix.WNOHANG|unix.WALL, nil)
		return false
	}
	return true
}

// locks takes and gives back the lock of the disk file.
func (t *trial) locks() []string {
	if t.raw == "" {
		return nil
	}
	fd, err := unix.Open(t.raw, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return []string{fmt.Sprintf("the disk %s cannot be opened: %v", t.raw, err)}
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return []string{fmt.Sprintf("a lock on %s: %v", t.raw, err)}
	}
	return nil
}

// bystanders are files beside the target that no run may touch.
func (t *trial) bystanders() string {
	sum := sha256.New()
	for _, root := range []string{filepath.Join(t.dir, "bystander"), filepath.Join(t.lab.dir, "images")} {
		_ = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintln(sum, name, err)
				return nil
			}
			info, err := e.Info()
			if err != nil {
				fmt.Fprintln(sum, name, err)
				return nil
			}
			fmt.Fprintln(sum, name, info.Mode(), info.Size())
			if info.Mode().IsRegular() {
				fmt.Fprintln(sum, info.ModTime())
			}
			return nil
		})
	}
	return fmt.Sprintf("%x %s", sum.Sum(nil), text(filepath.Join(t.dir, "bystander/file")))
}
