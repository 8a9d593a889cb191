package image

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"sort"
	"strings"
)

const (
	schilyXattr     = "SCHILY.xattr."     // star, GNU tar and all container tools: the raw value
	libarchiveXattr = "LIBARCHIVE.xattr." // libarchive: URL-encoded name, base64 value
	selinuxXattr    = "security.selinux"

	maxXattrName  = 255      // XATTR_NAME_MAX in <linux/limits.h>
	maxXattrValue = 64 << 10 // XATTR_SIZE_MAX in the same
)

// paxXattrs takes the extended attributes from a tar entry's PAX records.
func paxXattrs(records map[string]string) ([]Xattr, error) {
	var xattrs []Xattr
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
			return nil, err
		}
		// libarchive writes both forms; the raw one is exact.
		if _, both := records[schilyXattr+x.Name]; !both {
			xattrs = append(xattrs, x)
		}
	}
	return cleanXattrs(xattrs)
}

func libarchiveAttr(encoded, value string) (Xattr, error) {
	name, err := url.PathUnescape(encoded)
	if err != nil {
		return Xattr{}, fmt.Errorf("name of extended attribute %s: %w", quoteShort(encoded), err)
	}
	// libarchive leaves the padding out, others write it.
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "=\n"))
	if err != nil {
		return Xattr{}, fmt.Errorf("value of extended attribute %s: %w", quoteShort(name), err)
	}
	return Xattr{Name: name, Value: raw}, nil
}

// cleanXattrs sorts, and leaves out what an OSTree repository must not have
// (attributes without a value) and what another system's policy set (SELinux
// labels). It uses the given slice.
func cleanXattrs(xattrs []Xattr) ([]Xattr, error) {
	kept := xattrs[:0]
	for _, x := range xattrs {
		if x.Name == selinuxXattr || len(x.Value) == 0 {
			continue
		}
		if err := checkXattr(x); err != nil {
			return nil, err
		}
		kept = append(kept, x)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	sort.Slice(kept, func(i, j int) bool { return kept[i].Name < kept[j].Name })
	for i := 1; i < len(kept); i++ {
		if kept[i].Name == kept[i-1].Name {
			return nil, fmt.Errorf("extended attribute %s is there twice", quoteShort(kept[i].Name))
		}
	}
	return kept, nil
}

func checkXattr(x Xattr) error {
	switch {
	case x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 || len(x.Name) > maxXattrName:
		return fmt.Errorf("bad name of an extended attribute: %s", quoteShort(x.Name))
	case len(x.Value) > maxXattrValue:
		return fmt.Errorf("extended attribute %s has %d bytes, more than the %d that Linux takes", quoteShort(x.Name), len(x.Value), maxXattrValue)
	}
	return nil
}
