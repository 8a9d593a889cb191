package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"installer/rootfs/deploy"
	"installer/rootfs/ostree"
	"installer/rootfs/xattr"
)

// treeCheck compares one deployment with its commit.
type treeCheck struct {
	*findings
	ctx    context.Context
	tree   tree
	repo   *ostree.Repo
	broken map[string]bool // damaged file objects, by their path
	linked int             // files that are their objects
	copied int             // files that are equal to their objects
	metas  map[ostree.Checksum]ostree.DirMeta
}

// checkDeployments compares each deployment's tree with its commit: names, owners, modes,
// attributes and content.
func checkDeployments(ctx context.Context, f *findings, t tree, repo *ostree.Repo, deployments []*deployment, broken map[string]bool) error {
	linked, copied := 0, 0
	for _, d := range deployments {
		c := &treeCheck{findings: f, ctx: ctx, tree: t, repo: repo, broken: broken, metas: map[ostree.Checksum]ostree.DirMeta{}}
		commit, err := repo.LoadCommit(d.commit)
		if err != nil {
			f.fault("/"+d.path, "its commit cannot be read: %v", err)
			continue
		}
		c.dir(d.path, commit.Tree, commit.Meta, true)
		linked, copied = linked+c.linked, copied+c.copied
		checkImmutable(f, t, d)
	}
	f.say("%d files are hard links to their objects, %d are copies of them", linked, copied)
	return ctx.Err()
}

func (t *treeCheck) differs(where, format string, args ...any) {
	t.fault("/"+where, format, args...)
}

// dir compares a directory and all below it.
func (t *treeCheck) dir(at string, sum, meta ostree.Checksum, top bool) {
	if t.ctx.Err() != nil {
		return
	}
	err := t.tree.with(at, unix.O_DIRECTORY, func(f *os.File) error {
		t.dirMeta(at, f, meta)
		tree, err := t.repo.LoadDirTree(sum)
		if err != nil {
			t.differs(at, "its list in the commit cannot be read: %v", err)
			return nil
		}
		names, err := f.Readdirnames(-1)
		if err != nil {
			return err
		}
		extra := make(map[string]bool, len(names))
		for _, name := range names {
			extra[name] = true
		}
		for _, entry := range tree.Files {
			name := entry.Name
			if t.isWhiteout(int(f.Fd()), entry) {
				name, _ = ostree.QuotedWhiteout(name)
			} else {
				t.file(int(f.Fd()), path.Join(at, name), entry)
			}
			delete(extra, name)
		}
		for _, entry := range tree.Dirs {
			delete(extra, entry.Name)
			if top && ownName(entry.Name) {
				continue // empty in the commit
			}
			t.dir(path.Join(at, entry.Name), entry.Tree, entry.Meta, false)
		}
		for name := range extra {
			if !(top && ownName(name)) {
				t.differs(path.Join(at, name), "it is not in the commit")
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.differs(at, "this directory of the commit is missing")
	case err != nil:
		t.differs(at, "this directory cannot be read: %v", err)
	}
}

// ownName reports whether name is in the root of a deployment and not in its commit: its
// configuration, and the image by which a boot with composefs mounts it.
func ownName(name string) bool { return name == "etc" || name == deploy.ComposefsName }

func (t *treeCheck) dirMeta(at string, f *os.File, sum ostree.Checksum) {
	want, known := t.metas[sum]
	if !known {
		var err error
		if want, err = t.repo.LoadDirMeta(sum); err != nil {
			t.differs(at, "its metadata in the commit cannot be read: %v", err)
			return
		}
		t.metas[sum] = want
	}
	got, err := fileAt(int(f.Fd()), ".")
	if err != nil {
		t.differs(at, "%v", err)
		return
	}
	if what := metaDifference(got, want.UID, want.GID, want.Mode, want.Xattrs); what != "" {
		t.differs(at, "%s", what)
	}
}

// metaDifference describes how owner, mode or attributes differ from the commit's, or returns "".
func metaDifference(got file, uid, gid, mode uint32, xattrs []ostree.Xattr) string {
	st := got.stat
	switch name, _ := xattr.Equal(got.xattrs, xattrs); {
	case st.Mode != mode:
		return fmt.Sprintf("its mode is %#o, and in the commit %#o", st.Mode, mode)
	case st.Uid != uid || st.Gid != gid:
		return fmt.Sprintf("its owner is %d:%d, and in the commit %d:%d", st.Uid, st.Gid, uid, gid)
	case name != "":
		return fmt.Sprintf("its extended attribute %s differs from the commit's", name)
	}
	return ""
}

// file compares a file or link. One that shares its object's inode needs no more: the repository's
// check has read it.
func (t *treeCheck) file(parent int, at string, entry ostree.FileEntry) {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, entry.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		what := fmt.Sprintf("it cannot be looked at: %v", err)
		if errors.Is(err, unix.ENOENT) {
			what = "this file of the commit is missing"
		}
		t.differs(at, "%s", what)
		return
	}
	object, err := t.tree.stat(objectKey{ostree.TypeFile, entry.Checksum}.path())
	if err == nil && object.Dev == st.Dev && object.Ino == st.Ino {
		t.linked++
		if t.broken[at] {
			t.differs(at, "its object %s is damaged", entry.Checksum)
		}
		return
	}
	t.copied++
	if err := t.compare(parent, entry); err != nil {
		t.differs(at, "%v", err)
	}
}

// isWhiteout reports whether a file of the commit stands in the deployment as the whiteout that it
// quotes, with its owner, mode and attributes.
func (t *treeCheck) isWhiteout(parent int, entry ostree.FileEntry) bool {
	name, quoted := ostree.QuotedWhiteout(entry.Name)
	if !quoted {
		return false
	}
	got, err := fileAt(parent, name)
	if err != nil || got.stat.Mode&unix.S_IFMT != unix.S_IFCHR || got.stat.Rdev != 0 {
		return false
	}
	same := false
	err = t.repo.ReadContent(entry.Checksum, func(h ostree.FileHeader, _ int64, _ io.Reader) error {
		same = metaDifference(got, h.UID, h.GID, h.Mode&^unix.S_IFMT|unix.S_IFCHR, h.Xattrs) == ""
		return nil
	})
	return err == nil && same
}

// compare compares a file that is a copy with its object.
func (t *treeCheck) compare(parent int, entry ostree.FileEntry) error {
	got, err := fileAt(parent, entry.Name)
	if err != nil {
		return err
	}
	return t.repo.ReadContent(entry.Checksum, func(h ostree.FileHeader, size int64, content io.Reader) error {
		if what := metaDifference(got, h.UID, h.GID, h.Mode, h.Xattrs); what != "" {
			return errors.New(what)
		}
		switch {
		case h.IsSymlink() && got.target != h.Target:
			return fmt.Errorf("it is a link to %q, and in the commit to %q", got.target, h.Target)
		case h.IsSymlink():
			return nil
		case got.stat.Size != size:
			return fmt.Errorf("it has %d bytes, and in the commit %d", got.stat.Size, size)
		}
		return sameContent(t.ctx, parent, entry.Name, content)
	})
}

// sameContent compares a file with a stream of the same length.
func sameContent(ctx context.Context, parent int, name string, content io.Reader) error {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening it: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	a, b := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		n, errA := io.ReadFull(contextReader{ctx, f}, a)
		m, errB := io.ReadFull(content, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return errors.New("its content differs from the commit's")
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return fmt.Errorf("reading it: %w", err)
			}
		}
		if errA != nil {
			return nil
		}
	}
}

// immutableFlag is FS_IMMUTABLE_FL of <linux/fs.h>.
const immutableFlag = 0x10

// checkImmutable looks at the flag that keeps a deployment's root from being changed by accident.
// File systems may lack it, and installations may lack the capability to set it.
func checkImmutable(f *findings, t tree, d *deployment) {
	err := t.with(d.path, unix.O_DIRECTORY, func(dir *os.File) error {
		flags, err := unix.IoctlGetInt(int(dir.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil && flags&immutableFlag == 0 {
			f.note("/"+d.path, "it is not marked as immutable")
		}
		return nil
	})
	if err != nil {
		f.fault("/"+d.path, "%v", err)
	}
}
