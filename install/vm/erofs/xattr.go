package erofs

import (
	"encoding/binary"
	"fmt"
	"strings"

	"installer/rootfs/image"
)

// xattrHeader is the size of struct erofs_xattr_ibody_header without shared attributes.
const xattrHeader = 12

// xattrPrefixes are the beginnings of names that are stored as a number
// (EROFS_XATTR_INDEX_*). A name must begin with one of them.
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"user.", 1},
	{"trusted.", 4},
	{"security.", 6},
}

// encodeXattrs returns the attributes in the form that follows the inode; nil if there are none.
func encodeXattrs(attrs []image.Xattr) ([]byte, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	out := make([]byte, xattrHeader)
	for _, a := range attrs {
		index, name, err := splitXattr(a)
		if err != nil {
			return nil, err
		}
		out = append(out, byte(len(name)), index)
		out = binary.LittleEndian.AppendUint16(out, uint16(len(a.Value)))
		out = append(append(out, name...), a.Value...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out, nil
}

func splitXattr(a image.Xattr) (index byte, name string, err error) {
	for _, p := range xattrPrefixes {
		rest, ok := strings.CutPrefix(a.Name, p.prefix)
		if !ok {
			continue
		}
		if len(rest) > 255 || len(a.Value) > 1<<16-1 {
			return 0, "", fmt.Errorf("the extended attribute %q is too long", a.Name)
		}
		return p.index, rest, nil
	}
	return 0, "", fmt.Errorf("the extended attribute %q is of a kind that EROFS does not keep", a.Name)
}

// xattrCount is how i_xattr_icount states the size of encoded attributes.
func xattrCount(encoded []byte) uint16 {
	if len(encoded) == 0 {
		return 0
	}
	return uint16((len(encoded)-xattrHeader)/4 + 1)
}
