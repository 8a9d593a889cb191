package image

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileXattrs reads the extended attributes of an open file or, with a name, of the entry of that
// name in an open directory, without following a symbolic link.
func fileXattrs(f *os.File, name string) ([]Xattr, error) {
	list := func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) }
	get := func(x string, b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), x, b) }
	if name != "" {
		// No system call takes a name relative to a directory before Linux 6.13.
		at := fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name)
		list = func(b []byte) (int, error) { return unix.Llistxattr(at, b) }
		get = func(x string, b []byte) (int, error) { return unix.Lgetxattr(at, x, b) }
	}
	names, err := growing(list)
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	var xattrs []Xattr
	for x := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := growing(func(b []byte) (int, error) { return get(x, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("reading extended attribute %s: %w", quoteShort(x), err)
		}
		xattrs = append(xattrs, Xattr{Name: x, Value: value})
	}
	return xattrs, nil
}

// maxXattrBuffer is above the size of every value and list of names (XATTR_SIZE_MAX and
// XATTR_LIST_MAX in <linux/limits.h>), in bytes.
const maxXattrBuffer = 256 << 10

// growing calls a function that fills a buffer, with a larger one until it is enough.
func growing(fill func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := fill(buf)
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > maxXattrBuffer {
			return nil, err
		}
	}
}
