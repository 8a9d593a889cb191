package ostree

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"installer/rootfs/xattr"
)

// File type bits of st_mode, and the bits that may accompany them.
const (
	modeTypeMask  = 0o170000
	modeRegular   = 0o100000
	modeDirectory = 0o040000
	modeSymlink   = 0o120000
	modePermMask  = 0o7777
)

// noID is the user or group number that chown takes for "leave as it is".
const noID = ^uint32(0)

// Xattr is one extended attribute.
type Xattr = xattr.Attr

// FileHeader is the part of a file object that its checksum covers besides the content.
type FileHeader struct {
	UID, GID uint32
	Mode     uint32 // full st_mode: a regular file or a symbolic link
	Xattrs   []Xattr
	Target   string // of a symbolic link, otherwise empty
}

// IsSymlink reports whether the header is a symbolic link's.
func (h *FileHeader) IsSymlink() bool { return h.Mode&modeTypeMask == modeSymlink }

// normalize returns h as the file system will show it: links have mode 0777, attributes are sorted
// and none is empty.
func (h FileHeader) normalize() (FileHeader, error) {
	if err := checkOwner(h.UID, h.GID); err != nil {
		return h, err
	}
	if h.Mode&^(modeTypeMask|modePermMask) != 0 {
		return h, formatErrorf("mode %#o has unknown bits", h.Mode)
	}
	switch h.Mode & modeTypeMask {
	case modeRegular:
		if h.Target != "" {
			return h, formatErrorf("a regular file has the link target %q", h.Target)
		}
	case modeSymlink:
		if h.Target == "" || strings.IndexByte(h.Target, 0) >= 0 || !utf8.ValidString(h.Target) {
			return h, formatErrorf("link target %q is empty, holds a NUL or is not UTF-8", h.Target)
		}
		h.Mode = modeSymlink | 0o777
	default:
		return h, &FileTypeError{Mode: h.Mode}
	}
	var err error
	h.Xattrs, err = normalizeXattrs(h.Xattrs)
	return h, err
}

func checkOwner(uid, gid uint32) error {
	if uid == noID || gid == noID {
		return formatErrorf("owner %d:%d cannot be set on a file; the largest number is %d", uid, gid, noID-1)
	}
	return nil
}

// normalizeXattrs sorts by name, keeps the last of equal names and drops empty values, which the
// reference implementation never sees when it reads a file. The input is returned as it is when it
// complies already.
func normalizeXattrs(in []Xattr) ([]Xattr, error) {
	clean := true
	for i, x := range in {
		if x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 {
			return nil, formatErrorf("extended attribute name %q is empty or holds a NUL", x.Name)
		}
		clean = clean && len(x.Value) > 0 && (i == 0 || in[i-1].Name < x.Name)
	}
	if clean {
		return in, nil
	}
	sorted := slices.Clone(in)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	out := sorted[:0]
	for i, x := range sorted {
		if i+1 < len(sorted) && sorted[i+1].Name == x.Name {
			continue
		}
		if len(x.Value) > 0 {
			out = append(out, x)
		}
	}
	return out, nil
}

// appendHeader appends the bytes that precede the content in a file object's hash: the length of
// the header, four zero bytes, and the header (uuuusa(ayay)) itself. h must be normalized.
func appendHeader(b []byte, h *FileHeader) []byte {
	base := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, h.UID)
	b = binary.BigEndian.AppendUint32(b, h.GID)
	b = binary.BigEndian.AppendUint32(b, h.Mode)
	b = append(b, 0, 0, 0, 0) // rdev: devices cannot be stored
	b = append(b, h.Target...)
	b = append(b, 0)
	end := len(b) - start
	b = appendXattrs(b, h.Xattrs)
	b = appendOffsets(b, start, []int{end})
	binary.BigEndian.PutUint32(b[base:], uint32(len(b)-start))
	return b
}

// appendXattrs appends a(ayay): each name with its NUL, and its value.
func appendXattrs(b []byte, xattrs []Xattr) []byte {
	if len(xattrs) == 0 {
		return b
	}
	start := len(b)
	ends := make([]int, 0, len(xattrs))
	for _, x := range xattrs {
		elem := len(b)
		b = append(b, x.Name...)
		b = append(b, 0)
		nameEnd := len(b) - elem
		b = append(b, x.Value...)
		b = appendOffsets(b, elem, []int{nameEnd})
		ends = append(ends, len(b)-start)
	}
	return appendOffsets(b, start, ends)
}

// decodeXattrs copies the attributes out of a(ayay) and checks their rules.
func decodeXattrs(data []byte) ([]Xattr, error) {
	elems, err := splitArray(data, typeXattr)
	if err != nil || len(elems) == 0 {
		return nil, err
	}
	out := make([]Xattr, 0, len(elems))
	for _, e := range elems {
		m, err := splitTuple(e, typeXattr)
		if err != nil {
			return nil, err
		}
		name, ok := bytes.CutSuffix(m[0], []byte{0})
		if !ok || len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
			return nil, formatErrorf("extended attribute name %q is not one string with a final NUL", m[0])
		}
		if len(m[1]) == 0 {
			return nil, formatErrorf("extended attribute %q has an empty value", name)
		}
		if n := len(out); n > 0 && out[n-1].Name >= string(name) {
			return nil, formatErrorf("extended attribute %q is out of order or repeated", name)
		}
		out = append(out, Xattr{Name: string(name), Value: bytes.Clone(m[1])})
	}
	return out, nil
}
