package ostree

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"installer/rootfs/xattr"
)

// readBackMost is the size, in bytes, up to which a sample's content is read back and hashed.
const readBackMost = 16 << 20

// shape is the properties on which the storing of an object depends, besides its content. The first
// object of each shape is a sample: it is read from the file system and compared with its name.
type shape struct {
	typ                             ObjectType
	link, empty, large, huge        bool
	owned, setID                    bool // of another user or group than root, set-id or sticky
	acl, capability, attrs, inherit bool // which extended attributes it has
}

func shapeOf(t ObjectType, uid, gid, mode uint32, xattrs []Xattr, size int64) shape {
	s := shape{
		typ: t, link: mode&modeTypeMask == modeSymlink, empty: size == 0, large: size > smallContent, huge: size > readBackMost,
		owned: uid != 0 || gid != 0, setID: mode&0o7000 != 0,
	}
	for _, x := range xattrs {
		switch x.Name {
		case xattr.ACLAccess:
			s.acl = true
		case xattr.ACLDefault:
			s.inherit = true
		case xattr.Capability:
			s.capability = true
		default:
			s.attrs = true
		}
	}
	return s
}

// ReadBackError says that the file system shows an object or directory differently than it was
// written: other programs would call it corrupt.
type ReadBackError struct {
	Path   string // relative to the physical root
	Attr   string // extended attribute that differs, "" if it is not an attribute
	Added  bool   // it was not written
	Reason string // of another difference
}

func (e *ReadBackError) Error() string {
	switch {
	case e.Attr == "":
		return fmt.Sprintf("reading back /%s: %s; the file system does not keep data as it is written", e.Path, e.Reason)
	case !e.Added:
		return fmt.Sprintf("reading back /%s: the extended attribute %q is not as it was written; another program or the kernel changed it", e.Path, e.Attr)
	}
	return fmt.Sprintf("reading back /%s: it has the extended attribute %q, which was not written, and would be called corrupt by ostree; %s", e.Path, e.Attr, origin(e.Attr))
}

// origin returns the source of an attribute that was not written, and the remedy.
func origin(attr string) string {
	switch {
	case attr == xattr.SELinux:
		return "this kernel has a SELinux policy and labels every new file: mount the file system with -o context=LABEL, or use installer build, whose virtual machine has no policy"
	case attr == xattr.ACLAccess || attr == xattr.ACLDefault || strings.HasPrefix(attr, "trusted.SGI_ACL"):
		return "it was inherited from a directory with a default access control list: remove that with setfacl -k"
	case strings.HasPrefix(attr, "security."):
		return "a security module of this kernel sets it: install on a machine where that module is off, or use installer build"
	case strings.HasPrefix(attr, "btrfs."):
		return "it was inherited from a directory: remove that property with btrfs property set"
	}
	return "find the program that sets it, and stop it during the installation"
}

// sample reads an object back that was just written, if it is the first of its shape.
func (w *writer) sample(k objectKey, h *FileHeader, size int64) error {
	if k.typ == TypeCommitMeta {
		return nil // it bears the name of its commit
	}
	if k.typ != TypeFile {
		h = &metadataHeader
	}
	s := shapeOf(k.typ, h.UID, h.GID, h.Mode, h.Xattrs, size)
	if _, known := w.samples.LoadOrStore(s, k); known {
		return nil
	}
	return w.objects.readBack(k, h, size)
}

// ReadBack reads the first object of each shape that was written, again, and compares it with its
// name. The error is a [*ReadBackError] if they differ.
func (r *Repo) ReadBack(ctx context.Context) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	return r.writer.readBack(ctx)
}

func (w *writer) readBack(ctx context.Context) (err error) {
	w.samples.Range(func(_, k any) bool {
		if err = ctx.Err(); err == nil {
			err = w.objects.readBack(k.(objectKey), nil, -1)
		}
		return err == nil
	})
	return err
}

// readBack compares an object with its name and, unless want is nil, its metadata with want.
func (o *objects) readBack(k objectKey, want *FileHeader, size int64) error {
	if k.typ != TypeFile {
		return o.with(k, func(data []byte) error {
			if Checksum(sha256.Sum256(data)) != k.sum {
				return &ReadBackError{Path: k.ledgerName(), Reason: "its content is another one"}
			}
			return nil
		})
	}
	return o.readContent(k, func(got FileHeader, gotSize int64, content io.Reader) error {
		got, err := got.normalize()
		if err != nil {
			return err
		}
		if want != nil {
			if err := differsFrom(k.ledgerName(), &got, want, gotSize-size); err != nil {
				return err
			}
		}
		if gotSize > readBackMost {
			return nil // its metadata counts
		}
		return rehash(k, &got, content)
	})
}

func rehash(k objectKey, got *FileHeader, content io.Reader) error {
	sum, err := hashFile(context.Background(), got, content)
	if err != nil {
		return err
	}
	if sum != k.sum {
		err := &ReadBackError{Path: k.ledgerName(), Reason: fmt.Sprintf("its checksum is %s", sum)}
		for _, x := range got.Xattrs { // the usual cause
			if x.Name == xattr.SELinux {
				err.Attr, err.Added = x.Name, true
			}
		}
		return err
	}
	return nil
}

// differsFrom compares metadata that was read with the metadata that was written.
func differsFrom(path string, got, want *FileHeader, more int64) error {
	switch {
	case more != 0:
		return &ReadBackError{Path: path, Reason: fmt.Sprintf("its size differs by %d bytes", more)}
	case got.Target != want.Target:
		return &ReadBackError{Path: path, Reason: fmt.Sprintf("it is a link to %.256q, not to %.256q", got.Target, want.Target)}
	}
	if err := attrsDiffer(path, got.Xattrs, want.Xattrs); err != nil {
		return err
	}
	if got.UID != want.UID || got.GID != want.GID || got.Mode != want.Mode {
		return &ReadBackError{Path: path, Reason: fmt.Sprintf("its owner is %d:%d and its mode %#o, not %d:%d and %#o",
			got.UID, got.GID, got.Mode, want.UID, want.GID, want.Mode)}
	}
	return nil
}

func attrsDiffer(path string, got, want []Xattr) error {
	values := map[string]string{}
	for _, x := range want {
		values[x.Name] = string(x.Value)
	}
	for _, x := range got {
		value, known := values[x.Name]
		if !known || value != string(x.Value) {
			return &ReadBackError{Path: path, Attr: x.Name, Added: !known}
		}
		delete(values, x.Name)
	}
	for name := range values {
		return &ReadBackError{Path: path, Attr: name}
	}
	return nil
}

// sampleDir reads a directory back that was just made of m, if it is the first of its shape.
func (c *checkout) sampleDir(fd int, path string, m DirMeta) error {
	s := shapeOf(TypeDirMeta, m.UID, m.GID, m.Mode, m.Xattrs, 0)
	if _, known := c.samples.LoadOrStore(s, true); known {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("reading back /%s: %w", path, err)
	}
	got, err := readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
	if err != nil {
		return fmt.Errorf("reading back /%s: %w", path, err)
	}
	// A commit that another program made can have a form that is not the one that is shown.
	if name, equal := xattr.Equal(got, m.Xattrs); !equal {
		if err := attrsDiffer(path, got, m.Xattrs); err != nil {
			return err
		}
		return &ReadBackError{Path: path, Attr: name}
	}
	if st.Uid != m.UID || st.Gid != m.GID || st.Mode != m.Mode {
		return &ReadBackError{Path: path, Reason: fmt.Sprintf("its owner is %d:%d and its mode %#o, not %d:%d and %#o",
			st.Uid, st.Gid, st.Mode, m.UID, m.GID, m.Mode)}
	}
	return nil
}
