package main

import (
	"crypto/sha256"
	"errors"
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

// grace is how long the kernel gets to take down the resources of a killed process.
const grace = 20 * time.Second

func itoa(n int) string { return strconv.Itoa(n) }
func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// read returns the trimmed text of a file of /proc or /sys, or "" when the process or device has
// ended. A file that is there and cannot be read is an error: it could hide anything.
func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENXIO, unix.ENODEV} {
		if errors.Is(err, gone) {
			return "", nil
		}
	}
	return strings.TrimSpace(string(b)), err
}

type process struct{ pid, line string }

func processes() (all []process, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		line, err := read(name)
		if err != nil {
			return nil, err
		}
		line = strings.ReplaceAll(strings.TrimRight(line, "\x00"), "\x00", " ")
		all = append(all, process{filepath.Base(filepath.Dir(name)), line})
	}
	return all, nil
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

// left lists the leftovers. A place that cannot be looked at is listed too.
func (p *place) left() (left []string) {
	for _, look := range []func() ([]string, error){
		func() ([]string, error) { return loopsOn(p.dir) },
		func() ([]string, error) { return mountsOf(p.dir) },
		p.processesLeft, p.filesLeft,
	} {
		found, err := look()
		left = append(left, found...)
		if err != nil {
			left = append(left, fmt.Sprintf("cannot be looked at: %v", err))
		}
	}
	return append(left, p.locks()...)
}

// filesLeft lists the entries of the trial's directories and of the installer's workspace that are
// new.
func (p *place) filesLeft() (found []string, err error) {
	for dir, known := range map[string][]string{p.tmp: nil, p.dir: p.known, workspaceDir: nil} {
		entries, readErr := os.ReadDir(dir)
		if readErr != nil && !(dir == workspaceDir && errors.Is(readErr, fs.ErrNotExist)) {
			err = errors.Join(err, readErr)
		}
		for _, e := range entries {
			if !slices.Contains(known, e.Name()) {
				found = append(found, "file "+filepath.Join(dir, e.Name()))
			}
		}
	}
	return found, err
}

// loopsOn lists the loop devices on files below dir, and their partitions. A mount in a namespace
// that no process is in keeps its device, too.
func loopsOn(dir string) (found []string, err error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		backing, err := read(f)
		if err != nil {
			return found, err
		}
		if !strings.HasPrefix(backing, dir+"/") {
			continue
		}
		name := filepath.Base(filepath.Dir(filepath.Dir(f)))
		found = append(found, fmt.Sprintf("loop device %s on %s", name, backing))
		parts, err := filepath.Glob("/sys/block/" + name + "/" + name + "p*")
		if err != nil {
			return found, err
		}
		for _, p := range parts {
			found = append(found, "partition "+filepath.Base(p))
		}
	}
	return found, nil
}

// mountsOf lists the mounts of this namespace that have a file below dir as their device, or are the
// installer's workspace. A mount elsewhere keeps its loop device, which loopsOn lists.
func mountsOf(dir string) (found []string, err error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && !ownMount(fields) && (strings.HasPrefix(fields[4], workspaceDir) || strings.HasPrefix(fields[4], dir+"/")) {
			found = append(found, "mount: "+strings.TrimSpace(line))
		}
	}
	return found, nil
}

// ownMount reports whether a mount is one that a kind of fault made, and unmounts itself; the next
// to last field of the table is the source.
func ownMount(fields []string) bool {
	return slices.Contains([]string{"faults", "faultdisk"}, fields[len(fields)-2])
}

// processesLeft lists installers on the disk of the trial, and orphans.
func (p *place) processesLeft() (found []string, err error) {
	all, err := processes()
	for _, running := range all {
		ours, orphanErr := orphan(running.pid)
		err = errors.Join(err, orphanErr)
		switch {
		case running.pid == itoa(os.Getpid()):
		case strings.Contains(running.line, p.dir+"/"):
			found = append(found, "process "+running.pid+": "+running.line)
		case ours:
			found = append(found, "orphan "+running.pid+": "+running.line)
		}
	}
	return found, err
}

// orphan reports whether a process is a child of this one; it is called only while none that was
// started here runs. A zombie is reaped.
func orphan(pid string) (bool, error) {
	stat, err := read("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(stat, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != itoa(os.Getpid()) {
		return false, err
	}
	if fields[0] == "Z" {
		_, _ = unix.Wait4(atoi(pid), nil, unix.WNOHANG|unix.WALL, nil)
		return false, nil
	}
	return true, nil
}

// locks takes and gives back the lock of the disk file.
func (p *place) locks() []string {
	if p.raw == "" {
		return nil
	}
	fd, err := unix.Open(p.raw, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return []string{fmt.Sprintf("the disk %s cannot be opened: %v", p.raw, err)}
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return []string{fmt.Sprintf("a lock on %s: %v", p.raw, err)}
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
	content, err := os.ReadFile(filepath.Join(t.dir, "bystander/file"))
	if err != nil {
		t.breach("reading the bystander: %v", err)
	}
	return fmt.Sprintf("%x %s", sum.Sum(nil), content)
}
