// Package xattr holds the rules by which Linux and its file systems accept, refuse and change
// extended attributes.
//
// It judges the attributes of an image before anything is written, and gives them the form in which
// the file system shows them afterwards. An object's name is a checksum over that form. It reads
// and writes no file.
package xattr

import (
	"errors"
	"fmt"
	"sort"
	"strings"
)

// Attr is one extended attribute. The name is complete ("security.capability").
type Attr struct {
	Name  string
	Value []byte
}

// Names of attributes that have rules of their own.
const (
	SELinux    = "security.selinux"
	Capability = "security.capability"
	ACLAccess  = "system.posix_acl_access"
	ACLDefault = "system.posix_acl_default"

	// XFS lists an access control list under these names, too.
	xfsACLAccess  = "trusted.SGI_ACL_FILE"
	xfsACLDefault = "trusted.SGI_ACL_DEFAULT"
)

// Limits of Linux (XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX in <linux/limits.h>), in
// bytes.
const (
	maxName  = 255
	maxValue = 64 << 10
	maxList  = 64 << 10
)

// File types in st_mode.
const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeSymlink = 0o120000
)

// errUnsupported is the answer EOPNOTSUPP of setxattr(2), on which container engines leave the
// attribute out.
var errUnsupported = errors.New("no such attribute in Linux")

// Canonical returns the attributes that a file of this mode shows after they were set on it, sorted
// by name, and its mode then: an access control list changes the permissions. Attributes without a
// value are left out. So are those that Linux does not know, which container engines leave out as
// well; dropped names them. An attribute that Linux refuses with another error, and an attribute
// that occurs twice, is an error. The input is not changed.
func Canonical(mode uint32, in []Attr) (out []Attr, newMode uint32, dropped []string, err error) {
	for _, a := range in {
		if len(a.Value) == 0 {
			continue
		}
		shown, err := canonical(&mode, a)
		switch {
		case errors.Is(err, errUnsupported):
			dropped = append(dropped, a.Name)
		case err != nil:
			return nil, mode, nil, fmt.Errorf("extended attribute %s: %w", quote(a.Name), err)
		case shown != nil:
			out = append(out, Attr{a.Name, shown})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, mode, nil, fmt.Errorf("extended attribute %s occurs twice", quote(out[i].Name))
		}
	}
	return out, mode, dropped, nil
}

// canonical returns the value that a file shows after the attribute was set; nil means none.
func canonical(mode *uint32, a Attr) ([]byte, error) {
	switch {
	case strings.IndexByte(a.Name, 0) >= 0 || len(a.Name) > maxName:
		return nil, fmt.Errorf("the name has a NUL byte or more than %d bytes", maxName)
	case len(a.Value) > maxValue:
		return nil, fmt.Errorf("the value has %d bytes, and Linux accepts %d", len(a.Value), maxValue)
	}
	switch a.Name {
	case Capability:
		return canonicalCapability(a.Value)
	case ACLAccess:
		return canonicalAccess(mode, a.Value)
	case ACLDefault:
		return canonicalDefault(*mode, a.Value)
	case xfsACLAccess, xfsACLDefault:
		return nil, nil // a copy of an attribute that has its own name
	}
	namespace, rest, dotted := strings.Cut(a.Name, ".")
	switch {
	case !dotted || namespace != "user" && namespace != "trusted" && namespace != "security":
		return nil, errUnsupported // com.apple.provenance, system.nfs4_acl, btrfs.compression
	case rest == "":
		return nil, errors.New("nothing follows the namespace in its name")
	case namespace == "user" && *mode&modeType == modeSymlink:
		return nil, errors.New("a symbolic link cannot have attributes of the namespace user")
	}
	return a.Value, nil
}

// Equal reports whether two sorted lists show the same attributes, and names the first that
// differs. A list read from XFS and one read from another file system can be compared, and so can a
// capability as it was stored with the same capability as the kernel shows it.
func Equal(a, b []Attr) (differs string, equal bool) {
	a, b = comparable(a), comparable(b)
	for n := 0; n < len(a) || n < len(b); n++ {
		switch {
		case n >= len(a):
			return b[n].Name, false
		case n >= len(b):
			return a[n].Name, false
		case a[n].Name != b[n].Name || string(a[n].Value) != string(b[n].Value):
			return min(a[n].Name, b[n].Name), false
		}
	}
	return "", true
}

// comparable leaves out the copies of access control lists that XFS shows, and brings capabilities
// into one form.
func comparable(in []Attr) []Attr {
	out := make([]Attr, 0, len(in))
	for _, a := range in {
		if a.Name == xfsACLAccess || a.Name == xfsACLDefault {
			continue
		}
		if a.Name == Capability {
			if v, err := canonicalCapability(a.Value); err == nil {
				a.Value = v
			}
		}
		out = append(out, a)
	}
	return out
}

// quote quotes a name that an image chose, and shortens a long one.
func quote(name string) string {
	const most = 256
	if len(name) > most {
		return fmt.Sprintf("%q… (%d bytes)", name[:most], len(name))
	}
	return fmt.Sprintf("%q", name)
}
