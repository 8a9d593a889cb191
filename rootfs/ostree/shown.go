package ostree

import (
	"golang.org/x/sys/unix"

	"installer/rootfs/xattr"
)

// asShown returns the header as the file system shows the file once it is written: without this an
// object would not have the checksum that its file gives. h is normalized; xfs says that the
// repository is on XFS.
func asShown(h FileHeader, xfs bool) (FileHeader, error) {
	var err error
	if h.Xattrs, h.Mode, err = shown(h.Mode, h.Xattrs); err != nil || !xfs {
		return h, err
	}
	h.Xattrs, err = normalizeXattrs(xattr.OnXFS(h.Xattrs))
	return h, err
}

// Shown returns the header that WriteContent stores for h.
func (r *Repo) Shown(h FileHeader) (FileHeader, error) { return r.folders.shown(h) }

func (f *folders) shown(h FileHeader) (FileHeader, error) {
	h, err := h.normalize()
	if err == nil && len(h.Xattrs) > 0 {
		h, err = asShown(h, f.xfs)
	}
	return h, err
}

// Shown returns the metadata that WriteDirMeta stores for m.
func (m DirMeta) Shown() (DirMeta, error) {
	if len(m.Xattrs) == 0 {
		return m, nil
	}
	xattrs, err := normalizeXattrs(m.Xattrs)
	if err == nil {
		m.Xattrs, m.Mode, err = shown(m.Mode, xattrs)
	}
	return m, err
}

// shown brings attributes, and the mode that goes with them, into the form in which they are read
// back.
func shown(mode uint32, in []Xattr) ([]Xattr, uint32, error) {
	out, mode, dropped, err := xattr.Canonical(mode, in)
	switch {
	case err != nil:
		return nil, mode, &FormatError{Reason: err.Error()}
	case len(dropped) > 0:
		return nil, mode, formatErrorf("Linux has no extended attribute %.256q", dropped[0])
	}
	return out, mode, nil
}

// isXFS reports whether an open file is on XFS.
func isXFS(fd int) (bool, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	for err == unix.EINTR {
		err = unix.Fstatfs(fd, &st)
	}
	return st.Type == unix.XFS_SUPER_MAGIC, err
}
