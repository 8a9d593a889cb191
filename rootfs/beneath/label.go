package beneath

import (
	"fmt"

	"golang.org/x/sys/unix"

	"installer/rootfs/xattr"
)

// SetLabel gives name an SELinux label, without following it if it is a symbolic link.
func (d *Dir) SetLabel(name, label string) error {
	return d.At(name, func(parent int, base string) error {
		at := fmt.Sprintf("/proc/self/fd/%d/%s", parent, base)
		err := unix.Lsetxattr(at, xattr.SELinux, append([]byte(label), 0), 0)
		return d.FailIf("set the SELinux label "+label+" of", name, err)
	})
}

// HasLabel reports whether name has an SELinux label.
func (d *Dir) HasLabel(name string) (has bool, err error) {
	err = d.At(name, func(parent int, base string) error {
		n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", parent, base), xattr.SELinux, nil)
		has = n > 0
		if err == unix.ENODATA {
			return nil
		}
		return d.FailIf("read the SELinux label of", name, err)
	})
	return has, err
}
