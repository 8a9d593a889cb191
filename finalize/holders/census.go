package holders

import (
	"context"
	"fmt"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// census compares the kernel's own table of a file system's mounts with those of all namespaces.
type census struct {
	super kernel.Superblock
	// listed are the mounts of all namespaces before and after the table was read: namespaces come
	// and go meanwhile.
	listed []placed
}

// placed is a mount with its namespace.
type placed struct {
	ns    mounts.Namespace
	mount mounts.Mount
}

// takeCensus reads the table of the file system that m shows.
func takeCensus(ctx context.Context, before *mounts.Snapshot, m mounts.Mount) (census, error) {
	super, err := kernel.Read(m)
	if err != nil {
		return census{}, err
	}
	after, err := mounts.List(ctx)
	if err != nil {
		return census{}, err
	}
	c := census{super: super}
	for _, snapshot := range []*mounts.Snapshot{before, after} {
		for ns, mount := range snapshot.OfSuperblock(m.Dev) {
			c.listed = append(c.listed, placed{ns, mount})
		}
	}
	return c, nil
}

// hidden returns the mounts that are in no namespace that can be seen: layers of overlays, those
// that a process keeps, and those of namespaces that the kernel does not list.
func (c census) hidden() []kernel.Mount {
	var list []kernel.Mount
	for _, m := range c.super.Mounts {
		if _, ok := c.find(m); !ok {
			list = append(list, m)
		}
	}
	return list
}

func (c census) find(m kernel.Mount) (placed, bool) {
	for _, p := range c.listed {
		if m.Is(p.mount) {
			return p, true
		}
	}
	return placed{}, false
}

// uses describes everything that refers to the file system, but for its mounts in namespaces. If
// there is nothing, nobody uses it.
func (c census) uses() []string {
	var list []string
	for _, m := range c.super.Mounts {
		p, ok := c.find(m)
		switch {
		case !ok && m.Namespace == 0:
			list = append(list, fmt.Sprintf("mount %d, which is in no mount namespace", m.ID))
		case m.Uses == 0:
		case ok:
			list = append(list, fmt.Sprintf("%d to the mount on %s%s", m.Uses, p.mount.Point, inNamespace(p.ns)))
		default:
			list = append(list, fmt.Sprintf("%d to mount %d in %s", m.Uses, m.ID, mounts.NamespaceName(m.Namespace)))
		}
	}
	if c.super.Others != 0 {
		list = append(list, fmt.Sprintf("%d to the superblock itself", c.super.Others))
	}
	return list
}

// references are the uses, and the mounts in namespaces that cannot be seen: they too keep the
// superblock alive, but for those that go with the mount.
func (c census) references() []string {
	list := c.uses()
	for _, m := range c.hidden() {
		if m.Namespace != 0 && !m.Follows {
			list = append(list, fmt.Sprintf("mount %d in %s", m.ID, mounts.NamespaceName(m.Namespace)))
		}
	}
	return list
}
