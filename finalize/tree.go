package finalize

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Bind is a mount of the tree whose superblock is not the target's: it is mounted elsewhere too, or
// is an interface of the kernel's. It is unmounted, and nothing else is done to its file system.
type Bind struct {
	Mount mounts.Mount `json:"mount"`
	// Elsewhere is another mount of the superblock; empty for an interface of the kernel's.
	Elsewhere string `json:"elsewhere,omitempty"`
}

// filesystem is a superblock of the target, with the mount of the tree that it is reached by.
type filesystem struct {
	mounts.Mount
	kind kind
}

// sortTree finds out whose the superblocks of the tree are: that of the root mount is the target's,
// another one if no mount of it stands outside of the tree. A mount that goes along with the
// unmount, or is unmounted too, does not count.
func (r *Release) sortTree(snapshot *mounts.Snapshot) {
	outside := r.outside(snapshot)
	seen := map[mounts.DevNum]bool{}
	for _, m := range r.Tree {
		other, shared := outside[m.Dev]
		switch {
		case m.Dev == r.Root.Dev:
		case kindOf(m) == interfaces:
			r.binds = append(r.binds, Bind{Mount: m})
			continue
		case shared:
			r.binds = append(r.binds, Bind{m, other})
			continue
		}
		if !seen[m.Dev] {
			seen[m.Dev] = true
			r.systems = append(r.systems, filesystem{r.reachedBy(m), kindOf(m)})
		}
	}
}

// leaveSubdirectories takes mounts of a subdirectory for binds of a file system that is mounted
// where this process cannot look.
func (r *Release) leaveSubdirectories() error {
	r.systems = slices.DeleteFunc(r.systems, func(f filesystem) bool {
		foreign := f.Dev != r.Root.Dev && f.Root != "/"
		if foreign {
			r.binds = append(r.binds, Bind{f.Mount, "a place out of sight, perhaps"})
		}
		return foreign
	})
	return r.matchDevices()
}

// findReached finds the mounts that go along with the unmount, by propagation. A bind mount in the
// tree may be a peer of its original, as one of /dev or /sys made by mount --rbind: the unmount of
// a mount on it would take the one on the original down too. Such a bind mount is to be cut off.
func (r *Release) findReached(snapshot *mounts.Snapshot) {
	r.cut = map[int]bool{}
	inTree := map[int]bool{}
	for _, m := range r.Tree {
		inTree[m.ID] = true
	}
	copies := map[int]bool{} // the mounts that stand on a copy of the root
	for ns, m := range snapshot.All {
		copies[m.ID] = r.standsOnCopy(ns, m)
	}
	for _, m := range r.Tree {
		alone := mounts.Reached(snapshot, []mounts.Mount{m})
		if inTree[m.Parent] && slices.ContainsFunc(alone, func(o mounts.Mount) bool { return !copies[o.ID] }) {
			r.cut[m.Parent] = true
		}
	}
	passedOn := slices.DeleteFunc(slices.Clone(r.Tree), func(m mounts.Mount) bool { return r.cut[m.Parent] })
	for _, m := range mounts.Reached(snapshot, passedOn) {
		if !inTree[m.ID] {
			r.reached = append(r.reached, m)
		}
	}
}

// outside returns, for each superblock, a mount of it that is neither in the tree nor taken care of.
func (r *Release) outside(snapshot *mounts.Snapshot) map[mounts.DevNum]string {
	found := map[mounts.DevNum]string{}
	ours := map[int]bool{}
	for _, m := range slices.Concat(r.Tree, r.reached) {
		ours[m.ID] = true
	}
	for ns, m := range snapshot.All {
		if ours[m.ID] || r.copied(ns) && r.standsOnCopy(ns, m) {
			continue
		}
		place := m.Point
		if !ns.Own {
			place = m.Point + " in " + ns.Name()
		}
		found[m.Dev] = place
	}
	return found
}

// copied reports whether a copy of the tree in a namespace is taken care of.
func (r *Release) copied(ns mounts.Namespace) bool {
	return r.Target.Copies == CopiesStay || r.Target.Copies == UnmountCopies && !ns.Own
}

// standsOnCopy reports whether a mount is one of the root's superblock, or stands on one.
func (r *Release) standsOnCopy(ns mounts.Namespace, m mounts.Mount) bool {
	for range ns.Mounts { // no chain of parents is longer
		if m.Dev == r.Root.Dev {
			return true
		}
		parent, ok := mounts.Find(ns.Mounts, m.Parent)
		if !ok || parent.ID == m.ID {
			return false
		}
		m = parent
	}
	return false
}

// reachedBy returns the mount by which a superblock is to be treated: the root of the tree if it is
// of that superblock, else the first whose root is a directory. A file may be mounted on a file.
func (r *Release) reachedBy(first mounts.Mount) mounts.Mount {
	if first.Dev == r.Root.Dev {
		return r.Root
	}
	for _, m := range r.Tree {
		if m.Dev == first.Dev && isDirectory(m) {
			return m
		}
	}
	return first
}

// isDirectory opens nothing: the root of a mount may be a FIFO.
func isDirectory(m mounts.Mount) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.Point, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// describe makes the target of the search for holders.
func (r *Release) describe(snapshot *mounts.Snapshot) error {
	for _, m := range slices.Concat(r.Tree, r.reached) {
		r.held.Mounts = append(r.held.Mounts, m.ID)
	}
	for _, f := range r.systems {
		r.held.Devices = append(r.held.Devices, f.Dev)
		if err := r.held.AddStatDevice(f.Point); err != nil {
			return err
		}
	}
	for _, d := range r.Target.Devices {
		r.held.Blocks = append(r.held.Blocks, d.number())
	}
	for ns, m := range snapshot.All {
		if r.copied(ns) && r.standsOnCopy(ns, m) && !slices.Contains(r.held.Mounts, m.ID) && !(m.Point == "/" && !ns.Own) {
			r.held.Mounts = append(r.held.Mounts, m.ID)
		}
	}
	return nil
}

// isOurs reports whether the superblock of a mount is the target's.
func (r *Release) isOurs(m mounts.Mount) bool {
	return slices.ContainsFunc(r.systems, func(f filesystem) bool { return f.Dev == m.Dev })
}

// bindsLine names the binds in one line, "" if there are none.
func bindsLine(binds []Bind) string {
	var parts []string
	for _, b := range binds {
		text := fmt.Sprintf("%s (%s", b.Mount.Point, b.Mount.FSType)
		if b.Elsewhere != "" {
			text += ", also at " + b.Elsewhere
		}
		parts = append(parts, text+")")
	}
	return strings.Join(parts, ", ")
}
