package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"installer/install/size"
	"installer/rootfs/ostree"
)

// etcCheck compares a deployment's /etc with its /usr/etc, of which it was made. On a new disk they
// are equal; a difference is a change, which a host may make.
type etcCheck struct {
	*findings
	ctx   context.Context
	tree  tree
	files int
	notes int
}

// check compares each deployment's /etc with its /usr/etc.
func (c *etcCheck) check(deployments []*deployment) error {
	for _, d := range deployments {
		etc, source := path.Join(d.path, "etc"), path.Join(d.path, "usr/etc")
		switch {
		case !c.tree.isDir(source):
			continue
		case !c.tree.isDir(etc):
			c.fault("/"+etc, "the deployment has no /etc")
			continue
		}
		if err := c.compare(source, etc); err != nil {
			c.fault("/"+etc, "%v", err)
		}
	}
	c.say("%s compared with /usr/etc, %s", size.Count(c.files, "file"), size.Count(c.notes, "change"))
	return c.ctx.Err()
}

func (c *etcCheck) changed(where, format string, args ...any) {
	c.notes++
	c.note("/"+where, format, args...)
}

// compare compares two directories and all below them.
func (c *etcCheck) compare(source, etc string) error {
	return c.tree.with(source, unix.O_DIRECTORY, func(from *os.File) error {
		return c.tree.with(etc, unix.O_DIRECTORY, func(to *os.File) error {
			names, err := from.Readdirnames(-1)
			if err != nil {
				return err
			}
			own, err := to.Readdirnames(-1)
			if err != nil {
				return err
			}
			inSource := make(map[string]bool, len(names))
			for _, name := range names {
				inSource[name] = true
				if err := c.entry(from, to, source, etc, name); err != nil {
					return err
				}
			}
			for _, name := range own {
				if !inSource[name] {
					c.changed(path.Join(etc, name), "added since the deployment was made")
				}
			}
			return c.ctx.Err()
		})
	})
}

func (c *etcCheck) entry(from, to *os.File, source, etc, name string) error {
	where := path.Join(etc, name)
	want, err := fileAt(int(from.Fd()), name)
	if err != nil {
		return fmt.Errorf("reading /%s: %w", path.Join(source, name), err)
	}
	got, err := fileAt(int(to.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		if name != ".updated" { // its absence asks for the first boot's work
			c.changed(where, "removed since the deployment was made")
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading /%s: %w", where, err)
	}
	c.files++
	if want.kind() == unix.S_IFDIR && got.kind() == unix.S_IFDIR {
		if err := c.compare(path.Join(source, name), where); err != nil {
			return err
		}
	}
	got.xattrs, want.xattrs = unlabelled(got.xattrs), unlabelled(want.xattrs)
	if what := metaDifference(got, want.stat.Uid, want.stat.Gid, want.stat.Mode, want.xattrs); what != "" {
		c.changed(where, "changed since the deployment was made: %s", what)
		return nil
	}
	return c.content(from, to, where, name, want, got)
}

// unlabelled returns attributes without the SELinux label: a path in /etc has another one than one in
// /usr/etc.
func unlabelled(attrs []ostree.Xattr) []ostree.Xattr { return slices.DeleteFunc(attrs, isLabel) }

func (c *etcCheck) content(from, to *os.File, where, name string, want, got file) error {
	switch want.kind() {
	case unix.S_IFLNK:
		if want.target != got.target {
			c.changed(where, "changed since the deployment was made: it is a link to %q, and was one to %q", got.target, want.target)
		}
	case unix.S_IFREG:
		if want.stat.Size != got.stat.Size {
			c.changed(where, "changed since the deployment was made: it has %d bytes, and had %d", got.stat.Size, want.stat.Size)
			return nil
		}
		fd, err := unix.Openat(int(from.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening the original of /%s: %w", where, err)
		}
		original := os.NewFile(uintptr(fd), name)
		defer original.Close()
		if err := sameContent(c.ctx, int(to.Fd()), name, original); err != nil {
			c.changed(where, "changed since the deployment was made: %v", err)
		}
	}
	return nil
}
