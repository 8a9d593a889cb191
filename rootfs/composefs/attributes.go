package composefs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"installer/rootfs/xattr"
)

// Attributes of overlayfs that an image has beside its files' own.
const (
	overlayPrefix = "trusted.overlay."
	escapedPrefix = "trusted.overlay.overlay." // of an overlayfs within this one
	userPrefix    = "user.overlay."            // of one that an ordinary user mounts

	overlayMetacopy = overlayPrefix + "metacopy"
	overlayRedirect = overlayPrefix + "redirect"
	overlayOpaque   = overlayPrefix + "opaque"
)

const (
	xattrHeader = 12  // struct erofs_xattr_ibody_header
	maxShared   = 128 // shared attributes of an inode
	maxXattr    = 255 // bytes of a name without its prefix
	maxValue    = 65535
	// maxXattrs bounds the attributes of a file as libcomposefs counts them, in bytes.
	maxXattrs      = 32767
	xattrEstimate  = 7
	filterSeed     = 0x25BBE08F // EROFS_XATTR_FILTER_SEED
	indexUser      = 1          // EROFS_XATTR_INDEX_*
	indexACL       = 2
	indexACLNormal = 3
	indexTrusted   = 4
	indexSecurity  = 6
)

// attribute is a name with a value, which inodes share.
type attribute struct {
	name, value string
	stored      storedName
	uses        int
	offset      uint32 // among the shared attributes
}

// storedName is the form of a name in the image: the number of its prefix, and the rest.
type storedName struct {
	index byte
	rest  string
	bit   uint32 // in the filter by which the kernel skips inodes that have no such name
}

// attributes are all attributes of an image.
type attributes struct {
	known map[nameValue]*attribute
	names map[string]storedName
	acl   bool // some inode has an access control list
}

type nameValue struct{ name, value string }

func newAttributes() attributes {
	return attributes{known: map[nameValue]*attribute{}, names: map[string]storedName{}}
}

// intern returns the one attribute of this name and value.
func (a *attributes) intern(name string, value []byte) *attribute {
	x := a.known[nameValue{name, string(value)}]
	if x == nil {
		x = &attribute{name: name, value: string(value), stored: a.store(name)}
		a.known[nameValue{name, x.value}] = x
	}
	return x
}

func (a *attributes) store(name string) storedName {
	s, ok := a.names[name]
	if !ok {
		s = splitName(name)
		a.names[name] = s
	}
	return s
}

func splitName(name string) storedName {
	s := storedName{rest: name}
	for _, p := range []struct {
		prefix string
		index  byte
	}{
		{"user.", indexUser}, {xattr.ACLAccess, indexACL}, {xattr.ACLDefault, indexACLNormal},
		{"trusted.", indexTrusted}, {"security.", indexSecurity},
	} {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			s = storedName{index: p.index, rest: strings.Clone(rest)}
			break
		}
	}
	s.bit = 1 << (xxh32(s.rest, filterSeed+uint32(s.index)) & 31)
	return s
}

// setAttributes gives a node the attributes of its file, and those of overlayfs.
func (t *tree) setAttributes(n *node) {
	n.attrs = make([]*attribute, 0, len(n.in.Xattrs)+2)
	for _, x := range n.in.Xattrs {
		name := x.Name
		if rest, ok := strings.CutPrefix(name, overlayPrefix); ok {
			name = escapedPrefix + rest
		}
		t.set(n, name, x.Value)
	}
	switch {
	case n.parent == n:
		t.set(n, overlayOpaque, []byte("y"))
	case n.kind == modeRegular && n.in.isWhiteout():
		t.set(n, escapedPrefix+"whiteout", nil)
		t.set(n, userPrefix+"whiteout", nil)
	case n.kind == modeRegular && n.in.Size > 0:
		t.setBacking(n)
	}
}

// setBacking names the file that has the content, and its digest.
func (t *tree) setBacking(n *node) {
	var metacopy []byte
	if d := n.in.Digest; len(d) > 0 {
		algorithm := byte(veritySHA256)
		if len(d) > len(Digest{}) {
			algorithm = veritySHA512
		}
		metacopy = append([]byte{0, byte(4 + len(d)), 0, algorithm}, d...) // struct ovl_metacopy
	}
	t.set(n, overlayMetacopy, metacopy)
	if n.in.Path != "" {
		t.set(n, overlayRedirect, append([]byte("/"), n.in.Path...))
	}
}

// markWhiteouts marks a directory that has escaped whiteouts, which an overlayfs within this one is
// to see.
func (t *tree) markWhiteouts(dir *node) {
	for _, prefix := range []string{escapedPrefix, userPrefix} {
		t.set(dir, prefix+"whiteouts", nil)
		if t.version >= 1 {
			t.set(dir, prefix+"opaque", []byte("x"))
		}
	}
}

// set replaces the attribute of this name, or adds it.
func (t *tree) set(n *node, name string, value []byte) {
	x := t.attrs.intern(name, value)
	for i, old := range n.attrs {
		if old.name == name {
			n.attrs[i] = x
			return
		}
	}
	n.attrs = append(n.attrs, x)
}

// settle brings the attributes of a node into their order, checks them and counts their uses.
func (a *attributes) settle(n *node) error {
	slices.SortFunc(n.attrs, func(x, y *attribute) int { return strings.Compare(x.name, y.name) })
	estimate := xattrHeader
	for _, x := range n.attrs {
		if len(x.stored.rest) > maxXattr || len(x.value) > maxValue {
			return fmt.Errorf("the extended attribute %.80q of %d bytes is too long", x.name, len(x.value))
		}
		x.uses++
		estimate += xattrEstimate + len(x.name) + len(x.value)
		a.acl = a.acl || x.name == xattr.ACLAccess || x.name == xattr.ACLDefault
	}
	if estimate > maxXattrs {
		return fmt.Errorf("a file has some %d bytes of extended attributes; a composefs image can have %d", estimate, maxXattrs)
	}
	return nil
}

// share gives the attributes that several inodes have their places among the shared ones, and
// returns these in their order.
func (a *attributes) share() (shared []*attribute, size int64) {
	for _, x := range a.known {
		if x.uses > 1 {
			shared = append(shared, x)
		}
	}
	slices.SortFunc(shared, func(x, y *attribute) int {
		return cmp.Or(strings.Compare(y.name, x.name), cmp.Compare(len(y.value), len(x.value)), strings.Compare(y.value, x.value))
	})
	for _, x := range shared {
		x.offset = uint32(size)
		size += x.size()
	}
	return shared, size
}

// split returns the attributes of a node that are shared, and those behind the inode.
func (n *node) split() (shared, own []*attribute) {
	for _, x := range n.attrs {
		if x.uses > 1 && len(shared) < maxShared {
			shared = append(shared, x)
		} else {
			own = append(own, x)
		}
	}
	return shared, own
}

// xattrSize returns the bytes of the attributes behind the inode.
func (n *node) xattrSize() int64 {
	if len(n.attrs) == 0 {
		return 0
	}
	size, shared := int64(xattrHeader), 0
	for _, x := range n.attrs {
		if x.uses > 1 && shared < maxShared {
			shared++
			size += 4
		} else {
			size += x.size()
		}
	}
	return size
}

// size is the bytes of struct erofs_xattr_entry with its name and value.
func (x *attribute) size() int64 { return roundUp(4+int64(len(x.stored.rest))+int64(len(x.value)), 4) }

func (x *attribute) append(b []byte) []byte {
	b = append(b, byte(len(x.stored.rest)), x.stored.index)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(x.value)))
	b = append(append(b, x.stored.rest...), x.value...)
	return pad(b, 4)
}

// appendXattrs appends the attributes behind an inode. base is the place of the shared ones, in
// bytes from the block in which they begin.
func (n *node) appendXattrs(b []byte, base int64) []byte {
	if len(n.attrs) == 0 {
		return b
	}
	filter := ^uint32(0)
	for _, x := range n.attrs {
		filter &^= x.stored.bit
	}
	shared, own := n.split()
	b = binary.LittleEndian.AppendUint32(b, filter)
	b = append(b, byte(len(shared)), 0, 0, 0, 0, 0, 0, 0)
	for _, x := range shared {
		b = binary.LittleEndian.AppendUint32(b, uint32((base+int64(x.offset))/4))
	}
	for _, x := range own {
		b = x.append(b)
	}
	return b
}

// xxh32 is the hash XXH32 (Collet, "xxHash fast digest algorithm").
func xxh32(s string, seed uint32) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	b, h := []byte(s), seed+p5
	if len(b) >= 16 {
		v := [4]uint32{seed + p1, seed, seed, seed}
		v[0], v[1], v[3] = v[0]+p2, v[1]+p2, v[3]-p1
		for ; len(b) >= 16; b = b[16:] {
			for i := range v {
				v[i] = bits.RotateLeft32(v[i]+binary.LittleEndian.Uint32(b[4*i:])*p2, 13) * p1
			}
		}
		h = bits.RotateLeft32(v[0], 1) + bits.RotateLeft32(v[1], 7) + bits.RotateLeft32(v[2], 12) + bits.RotateLeft32(v[3], 18)
	}
	h += uint32(len(s))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
