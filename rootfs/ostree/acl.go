package ostree

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Attributes in which file systems show a file's access control list. XFS shows
// its own form beside the common one, and every program that lists attributes
// reads both.
const (
	aclXattr    = "system.posix_acl_access"
	xfsACLXattr = "trusted.SGI_ACL_FILE"
)

// Tags of entries, and what stands for "no user or group" (<linux/posix_acl.h>).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclNoID = ^uint32(0)
)

// aclVersion begins the value (<linux/posix_acl_xattr.h>).
const aclVersion = 2

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// asShown returns the header as the file system will show the file once it is
// written. A list that says no more than a mode becomes the mode, any other
// decides the permission bits, and on XFS it is seen twice. Without this an
// object would not have the checksum that its file gives. h is normalized.
func (r *Repo) asShown(h FileHeader) (FileHeader, error) {
	at := -1
	for i := range h.Xattrs {
		if h.Xattrs[i].Name == aclXattr {
			at = i
		}
	}
	if at < 0 || h.IsSymlink() {
		return h, nil
	}
	acl, err := parseACL(h.Xattrs[at].Value)
	if err != nil {
		return h, err
	}
	h.Mode = h.Mode&^0o777 | aclMode(acl)
	xattrs := append([]Xattr{}, h.Xattrs[:at]...)
	xattrs = append(xattrs, h.Xattrs[at+1:]...)
	if len(acl) > 3 { // more than owner, group and others
		xattrs = append(xattrs, Xattr{Name: aclXattr, Value: encodeACL(acl)})
		if r.xfs {
			xattrs = append(xattrs, Xattr{Name: xfsACLXattr, Value: encodeXFSACL(acl)})
		}
	}
	h.Xattrs, err = normalizeXattrs(xattrs)
	return h, err
}

// parseACL reads a value and checks what the kernel checks: the order of tags,
// and that none is missing or repeated.
func parseACL(value []byte) ([]aclEntry, error) {
	if len(value) < 4 || (len(value)-4)%8 != 0 || binary.LittleEndian.Uint32(value) != aclVersion {
		return nil, formatErrorf("extended attribute %s is no access control list of version %d", aclXattr, aclVersion)
	}
	var acl []aclEntry
	count := map[uint16]int{}
	last := uint16(0)
	for b := value[4:]; len(b) > 0; b = b[8:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		named := e.tag == aclUser || e.tag == aclGroup
		if !named {
			e.id = aclNoID
		}
		if e.tag < last || e.tag == last && !named || e.perm > 7 || named && e.id == aclNoID {
			return nil, formatErrorf("extended attribute %s has entries out of order, repeated or out of range", aclXattr)
		}
		last = e.tag
		count[e.tag]++
		acl = append(acl, e)
	}
	known := count[aclUserObj] + count[aclUser] + count[aclGroupObj] + count[aclGroup] + count[aclMask] + count[aclOther]
	needsMask := count[aclUser]+count[aclGroup] > 0
	if known != len(acl) || count[aclUserObj]*count[aclGroupObj]*count[aclOther] != 1 || needsMask && count[aclMask] != 1 {
		return nil, formatErrorf("extended attribute %s lacks entries, or has unknown ones", aclXattr)
	}
	return acl, nil
}

// aclMode is the permission bits that a list implies; a mask stands for the group.
func aclMode(acl []aclEntry) (mode uint32) {
	for _, e := range acl {
		switch e.tag {
		case aclUserObj:
			mode |= uint32(e.perm) << 6
		case aclGroupObj:
			mode |= uint32(e.perm) << 3
		case aclMask:
			mode = mode&^0o070 | uint32(e.perm)<<3
		case aclOther:
			mode |= uint32(e.perm)
		}
	}
	return mode
}

func encodeACL(acl []aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range acl {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// encodeXFSACL is the list in XFS's form on disk (struct xfs_acl of the kernel's
// fs/xfs/libxfs/xfs_format.h).
func encodeXFSACL(acl []aclEntry) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(acl)))
	for _, e := range acl {
		b = binary.BigEndian.AppendUint32(b, uint32(e.tag))
		b = binary.BigEndian.AppendUint32(b, e.id)
		b = binary.BigEndian.AppendUint16(b, e.perm)
		b = append(b, 0, 0)
	}
	return b
}

// isXFS tells the file system of an open file.
func isXFS(fd int) (bool, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	for err == unix.EINTR {
		err = unix.Fstatfs(fd, &st)
	}
	return st.Type == unix.XFS_SUPER_MAGIC, err
}
