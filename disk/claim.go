package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/stack"
)

// lookAt describes a path, and refuses one that no installation can be written to.
func (h host) lookAt(path string) (subject, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return subject{}, fmt.Errorf("opening the disk: %w", err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return subject{}, fmt.Errorf("opening the disk %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return subject{}, &os.PathError{Op: "stat", Path: real, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return subject{path: real, file: fileID{st.Dev, st.Ino}}, nil
	case unix.S_IFBLK:
		return h.wholeDisk(real, block.Split(st.Rdev))
	}
	return subject{}, &RefusedError{path, "it is neither a block device nor a regular file"}
}

// wholeDisk describes a block device and its partitions, and refuses a partition.
func (h host) wholeDisk(path string, dev block.Number) (subject, error) {
	n, err := h.node(dev)
	if err != nil {
		return subject{}, err
	}
	if n.number != 0 {
		parent := filepath.Base(filepath.Dir(n.dir))
		return subject{}, &RefusedError{path, fmt.Sprintf(
			"it is partition %d of /dev/%s; to do: give the whole disk", n.number, strings.ReplaceAll(parent, "!", "/"))}
	}
	if part := stack.Partition(n.mapID); part != "" {
		return subject{}, &RefusedError{path, "it is partition " + part + " of a disk, mapped by kpartx; to do: give the whole disk"}
	}
	parts, err := h.partitions(n)
	if err != nil {
		return subject{}, err
	}
	return subject{path: path, nodes: append([]node{n}, parts...)}, nil
}

// claim opens the subject exclusively where the kernel can (no mount, no other exclusive opener of
// the disk or of a partition), and locks it; udev and partitioning programs honour the lock. Both
// last as long as the file is open, in a loop device over it too.
func (h host) claim(s subject) (*os.File, error) {
	flags := os.O_RDWR
	if len(s.nodes) > 0 {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(s.path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, h.claimedElsewhere(s, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disk for writing: %w", err)
	}
	if err := h.lock(f, s); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// claimedElsewhere explains an exclusive open that failed. A mount that came up since the survey is
// named; otherwise the claimer is one that the kernel names nowhere, such as a ZFS pool, which the
// content of the disk may name.
func (h host) claimedElsewhere(s subject, cause error) error {
	uses, err := h.survey(s)
	if err != nil {
		return err
	}
	if len(uses) == 0 {
		uses = s.pools()
	}
	if len(uses) == 0 {
		uses = []Use{{Kind: Claimed, What: s.path,
			Why:    "claimed exclusively by another program, or by a mount that no process shown in /proc has",
			Remedy: "look for it with: fuser -v " + s.path + "; lsblk " + s.path}}
	}
	return &InUseError{Path: s.path, Uses: uses, Err: cause}
}

// lock takes the whole-disk lock without waiting, and the locks of a disk image on a file, after
// making sure that the opened file is the surveyed one.
func (h host) lock(f *os.File, s subject) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("looking at the opened disk %s: %w", s.path, err)
	}
	if !s.same(st) {
		return fmt.Errorf("opening the disk: %s was replaced by another file meanwhile", s.path)
	}
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &InUseError{Path: s.path, Err: err, Uses: []Use{{Kind: Locked, What: s.path,
			Why: "locked by " + h.locker(st, "FLOCK"), Remedy: "wait for that program to end, or end it"}}}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", s.path, err)
	}
	if len(s.nodes) > 0 {
		return nil
	}
	return h.lockImage(f, s.path, ImageWriter)
}

// same reports whether a file is the surveyed one.
func (s subject) same(st unix.Stat_t) bool {
	if len(s.nodes) > 0 {
		return st.Mode&unix.S_IFMT == unix.S_IFBLK && block.Split(st.Rdev) == s.nodes[0].dev
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG && s.file == fileID{st.Dev, st.Ino}
}

// anotherProgram stands for a locker that /proc does not name.
const anotherProgram = "another program"

// locker names the holder of a lock of the given kinds on a file.
func (h host) locker(st unix.Stat_t, kinds ...string) string {
	if who := h.lockedBy(fileID{st.Dev, st.Ino}, kinds...); who != "" {
		return who
	}
	return anotherProgram
}

// lockedBy is like locker, and returns "" for a file that is not locked. It reads /proc/locks
// (proc(5)): "1: FLOCK  ADVISORY  WRITE 811 00:05:42 0 EOF".
func (h host) lockedBy(id fileID, kinds ...string) string {
	text, err := os.ReadFile(filepath.Join(h.Proc, "locks"))
	if err != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(id.dev), unix.Minor(id.dev), id.ino)
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 6 || f[5] != file || !slices.Contains(kinds, f[1]) {
			continue
		}
		pid, err := strconv.Atoi(f[4])
		if err != nil || pid <= 0 {
			return anotherProgram // an OFD lock has no process
		}
		return fmt.Sprintf("process %d (%s)", pid, h.Comm(pid))
	}
	return ""
}
