package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"

	"golang.org/x/sys/unix"
)

// subject identifies a disk in a search for its users: by the numbers of the disk and its
// partitions, or by the identity of a raw file.
type subject struct {
	path  string
	nodes []node // the whole disk first; empty for a file
	file  fileID // zero for a block device
}

// fileID names a file as the kernel does.
type fileID struct{ dev, ino uint64 }

// byNumber returns the path of the subject's device with a number.
func (s subject) byNumber(dev block.Number) (string, bool) {
	for _, n := range s.nodes {
		if n.dev == dev {
			return n.path(), true
		}
	}
	return "", false
}

// byPath returns the part of the subject that a path leads to. A path that cannot be looked at
// (gone, or of another mount namespace) does not match: the exclusive open settles such a case.
func (s subject) byPath(path string) (string, bool) {
	var st unix.Stat_t
	if !filepath.IsAbs(path) || unix.Stat(path, &st) != nil {
		return "", false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return s.byNumber(block.Split(st.Rdev))
	case unix.S_IFREG:
		return s.path, s.file != (fileID{}) && s.file == fileID{st.Dev, st.Ino}
	}
	return "", false
}

// survey lists the uses of the subject that the kernel shows. It only reads.
func (h host) survey(s subject) ([]Use, error) {
	uses, err := look(s, h.readOnly, h.mounts, h.btrfsMembers, h.swaps, h.stacked, h.loops)
	if err != nil {
		return nil, fmt.Errorf("finding out whether %s is in use: %w", s.path, err)
	}
	return uses, nil
}

// look lists the uses that several looks find.
func look(s subject, looks ...func(subject) ([]Use, error)) ([]Use, error) {
	var uses []Use
	for _, find := range looks {
		found, err := find(s)
		if err != nil {
			return nil, err
		}
		uses = append(uses, found...)
	}
	return uses, nil
}

// readOnly finds devices that refuse to be written.
func (h host) readOnly(s subject) ([]Use, error) {
	if len(s.nodes) == 0 {
		return nil, nil
	}
	ro, err := block.NumericAttribute(s.nodes[0].dir, "ro")
	if err != nil || ro == 0 {
		return nil, err
	}
	return []Use{{Kind: ReadOnly, What: s.nodes[0].path(), Why: "read-only",
		Remedy: "blockdev --setrw, or the switch on the medium"}}, nil
}

// mounts finds the subject among the mounts of every mount namespace. btrfs mounts bear an anonymous
// number, so the source is compared as well.
func (h host) mounts(s subject) ([]Use, error) {
	snapshot, err := h.list()
	if err != nil {
		return nil, err
	}
	var uses []Use
	for _, ns := range snapshot.Namespaces {
		found := s.mounted(ns.Mounts)
		if len(found) > 0 && !ns.Own {
			h.elsewhere(ns, found)
		}
		uses = append(uses, found...)
	}
	return uses, nil
}

// mounted picks the subject's mounts of a namespace.
func (s subject) mounted(list []mounts.Mount) []Use {
	var uses []Use
	for _, m := range list {
		what, ok := s.byNumber(m.Dev)
		if !ok {
			what, ok = s.byPath(m.Source)
		}
		if ok {
			uses = append(uses, Use{Kind: Mounted, What: what, Why: "mounted at " + m.Point, Remedy: "umount it",
				Mountpoint: m.Point, system: m.Point == "/"})
		}
	}
	return uses
}

// elsewhere adds to the uses which other namespace they are in.
func (h host) elsewhere(ns mounts.Namespace, uses []Use) {
	pid, orphan := h.processIn(ns), ""
	name := fmt.Sprintf("of process %d (%s)", pid, h.Comm(pid))
	if pid == 0 {
		orphan = ns.Name()
		name = orphan + ", which no process is in"
	}
	for i := range uses {
		u := &uses[i]
		u.Foreign, u.Orphan, u.system = true, orphan, u.system && pid == 1
		u.Why += " in the mount namespace " + name
	}
}

// processIn returns the first process that has a thread in a mount namespace, 0 where /proc shows
// none.
func (h host) processIn(ns mounts.Namespace) int {
	pids, err := h.Processes()
	if err != nil {
		return 0
	}
	name := ns.Name()
	inside := func(file string) bool {
		link, err := os.Readlink(file)
		return err == nil && link == name
	}
	i := slices.IndexFunc(pids, func(pid int) bool {
		threads, err := filepath.Glob(filepath.Join(h.Proc, strconv.Itoa(pid), "task/*/ns/mnt"))
		return err == nil && slices.ContainsFunc(threads, inside)
	})
	if i < 0 {
		return 0
	}
	return pids[i]
}

// btrfsMembers finds mounted btrfs file systems of several devices, whose mount lines name only
// one.
func (h host) btrfsMembers(s subject) ([]Use, error) {
	var uses []Use
	for _, n := range s.nodes {
		found, err := filepath.Glob(filepath.Join(h.Sys, "fs/btrfs/*/devices", n.name))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			id := filepath.Base(filepath.Dir(filepath.Dir(f)))
			uses = append(uses, Use{Kind: BtrfsMember, What: n.path(), Why: "member of the mounted btrfs file system " + id, Remedy: "umount it"})
		}
	}
	return uses, nil
}

// swaps finds the subject among the swap spaces.
func (h host) swaps(s subject) ([]Use, error) {
	list, err := h.Swaps()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, err
	}
	var uses []Use
	for _, swap := range list {
		if what, ok := s.byPath(swap.Path); ok {
			uses = append(uses, Use{Kind: Swap, What: what, Why: "used as swap", Remedy: "swapoff " + what})
		}
	}
	return uses, nil
}

// loops finds loop devices laid over the subject.
func (h host) loops(s subject) ([]Use, error) {
	list, err := h.Loops()
	if err != nil {
		return nil, err
	}
	var uses []Use
	for _, loop := range list {
		what, ok := s.byPath(loop.Backing)
		if !ok {
			continue
		}
		node := "/dev/" + loop.Name
		why := "attached to " + node
		if users := h.loopUsers(loop.Dir); users != "" {
			why += ", which " + users + " has open"
		} else if who := h.lockedBy(s.file, "FLOCK"); who != "" { // as an installation at its end, that has closed the device
			why += ", and locked by " + who
		} else if !loop.Attached() {
			continue // it was about to end
		}
		uses = append(uses, Use{Kind: Loop, What: what, Why: why,
			Remedy: "let that end, or unmount the file systems on it, then losetup -d " + node})
	}
	return uses, nil
}

// loopUsers lists the processes that have a loop device open, by its directory in sysfs; "" where
// /proc shows none.
func (h host) loopUsers(dir string) string {
	text, err := block.Attribute(dir, "dev")
	if err != nil {
		return "" // cleared meanwhile
	}
	number, err := block.ParseNumber(text)
	if err != nil {
		return ""
	}
	users, err := h.Openers(number)
	if err != nil {
		return ""
	}
	var names []string
	for _, user := range users {
		names = append(names, user.String())
	}
	return strings.Join(names, ", ")
}
