package image

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"installer/rootfs/xattr"
)

// Xattr is one extended attribute.
type Xattr = xattr.Attr

const (
	schilyXattr     = "SCHILY.xattr."     // star, GNU tar and all container tools: the raw value
	libarchiveXattr = "LIBARCHIVE.xattr." // libarchive: URL-encoded name, base64 value
)

// Ignored counts the extended attributes of an image that Linux does not know. They are left out,
// as container engines leave them out.
type Ignored struct {
	Count int
	First string // name of the first one
	Entry string // of the layer, or file of the directory, that has it
}

func (i *Ignored) add(names []string, entry string) {
	if i.Count == 0 && len(names) > 0 {
		i.First, i.Entry = strings.Clone(names[0]), strings.Clone(entry)
	}
	i.Count += len(names)
}

// join adds the count of another layer.
func (i *Ignored) join(other Ignored) {
	if i.Count == 0 {
		i.First, i.Entry = other.First, other.Entry
	}
	i.Count += other.Count
}

// setXattrs gives an entry the attributes in the form in which its file will show them, and the
// mode that goes with them. SELinux labels are those of another system's policy, and are left out.
func (b *builder) setXattrs(e *entry, found []Xattr) error {
	kept := found[:0]
	for _, x := range found {
		if x.Name != xattr.SELinux {
			kept = append(kept, x)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	shown, mode, dropped, err := xattr.Canonical(e.Mode, kept)
	if err != nil {
		return err
	}
	b.ignored.add(dropped, e.path)
	e.Mode, e.Xattrs = mode, shown
	return b.budget.spendXattrs(shown)
}

// paxXattrs returns the extended attributes in a tar entry's PAX records, and the names of those in
// libarchive's form that cannot be read, which no container engine reads.
func paxXattrs(records map[string]string) (xattrs []Xattr, unreadable []string) {
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, schilyXattr); ok {
			xattrs = append(xattrs, Xattr{Name: strings.Clone(name), Value: []byte(value)})
			continue
		}
		encoded, ok := strings.CutPrefix(key, libarchiveXattr)
		if !ok {
			continue
		}
		x, err := libarchiveAttr(encoded, value)
		if err != nil {
			unreadable = append(unreadable, encoded)
			continue
		}
		// libarchive writes both forms; the raw one is exact.
		if _, both := records[schilyXattr+x.Name]; !both {
			xattrs = append(xattrs, x)
		}
	}
	return xattrs, unreadable
}

func libarchiveAttr(encoded, value string) (Xattr, error) {
	name, err := url.PathUnescape(encoded)
	// libarchive leaves the padding out, others write it.
	raw, valueErr := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "=\n"))
	return Xattr{Name: name, Value: raw}, errors.Join(err, valueErr)
}
