package xattr

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Tags of entries, and the number that stands for no user or group (<linux/posix_acl.h>).
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

// aclMinimal is the count of entries that say no more than a mode: owner, group and others.
const aclMinimal = 3

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// canonicalAccess returns a file's access control list as it is shown. The permissions become those
// of the list, and a list that says no more than a mode is not kept.
func canonicalAccess(mode *uint32, value []byte) ([]byte, error) {
	acl, err := aclFor(*mode, value)
	if err != nil || len(acl) == 0 { // setting an empty one removes the list that is there
		return nil, err
	}
	*mode = *mode&^0o777 | aclMode(acl)
	if len(acl) == aclMinimal {
		return nil, nil
	}
	return encodeACL(acl), nil
}

// canonicalDefault is canonicalAccess for the list that new files of a directory inherit.
func canonicalDefault(mode uint32, value []byte) ([]byte, error) {
	acl, err := aclFor(mode, value)
	if err != nil || len(acl) == 0 {
		return nil, err
	}
	if mode&modeType != modeDir {
		return nil, errors.New("only a directory can have a default access control list")
	}
	return encodeACL(acl), nil
}

// aclFor reads a list in the order in which the kernel judges it: a symbolic link has none,
// whatever the entries are.
func aclFor(mode uint32, value []byte) ([]aclEntry, error) {
	switch {
	case len(value) < 4 || (len(value)-4)%8 != 0:
		return nil, fmt.Errorf("%d bytes are no access control list", len(value))
	case binary.LittleEndian.Uint32(value) != aclVersion || mode&modeType == modeSymlink:
		return nil, errUnsupported
	}
	return parseACL(value[4:])
}

// parseACL reads entries and checks the conditions that the kernel checks: the order of tags, and
// that none is missing or repeated. A list without entries is valid.
func parseACL(entries []byte) ([]aclEntry, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	var acl []aclEntry
	count := map[uint16]int{}
	last := uint16(0)
	for b := entries; len(b) > 0; b = b[8:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		named := e.tag == aclUser || e.tag == aclGroup
		if !named {
			e.id = aclNoID
		}
		if e.tag < last || e.tag == last && !named || e.perm > 7 || named && e.id == aclNoID {
			return nil, errors.New("the access control list has entries out of order, repeated or out of range")
		}
		last = e.tag
		count[e.tag]++
		acl = append(acl, e)
	}
	known := count[aclUserObj] + count[aclUser] + count[aclGroupObj] + count[aclGroup] + count[aclMask] + count[aclOther]
	needsMask := count[aclUser]+count[aclGroup] > 0
	if known != len(acl) || count[aclUserObj]*count[aclGroupObj]*count[aclOther] != 1 || needsMask && count[aclMask] != 1 {
		return nil, errors.New("the access control list lacks entries, or has unknown ones")
	}
	return acl, nil
}

// aclMode returns the permission bits that a list implies; a mask stands for the group.
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

// OnXFS returns canonical attributes as XFS lists them: each access control list a second time, in
// the form that it has on disk (struct xfs_acl of the kernel's fs/xfs/libxfs/xfs_format.h). Every
// program that lists attributes reads both.
func OnXFS(attrs []Attr) []Attr {
	out := attrs[:len(attrs):len(attrs)]
	for _, a := range attrs {
		name := map[string]string{ACLAccess: xfsACLAccess, ACLDefault: xfsACLDefault}[a.Name]
		if name == "" {
			continue
		}
		if acl, err := aclFor(modeDir, a.Value); err == nil { // always, of canonical ones
			out = append(out, Attr{name, encodeXFSACL(acl)})
		}
	}
	return out
}

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
