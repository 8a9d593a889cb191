package beneath

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Plain gives a new file or directory of ours exactly this mode and the owner root, and removes the
// extended attributes that it inherited from its parent, such as access control lists: files in a
// directory would inherit them too. The attributes of the security modules stay.
func Plain(parent int, name string, mode uint32) error {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", parent, name)
	if err := removeInherited(path); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("reading its owner: %w", err)
	}
	if st.Uid != 0 || st.Gid != 0 {
		if err := unix.Fchownat(parent, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("giving it to root: %w", err)
		}
	}
	if err := unix.Fchmodat(parent, name, mode, 0); err != nil && !(err == unix.EPERM && isFAT(parent)) {
		return fmt.Errorf("setting its mode: %w", err)
	}
	return nil
}

// isFAT reports whether files have the owner and mode that the mount gives them.
func isFAT(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.MSDOS_SUPER_MAGIC
}

func removeInherited(path string) error {
	size, err := unix.Llistxattr(path, nil)
	if size == 0 || err == unix.EOPNOTSUPP {
		return nil
	}
	list := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Llistxattr(path, list)
	}
	if err != nil {
		return fmt.Errorf("listing its extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "security.") {
			continue
		}
		// XFS lists an access control list twice, and removes both at once.
		if err := unix.Lremovexattr(path, name); err != nil && err != unix.ENODATA {
			return fmt.Errorf("removing the inherited extended attribute %q: %w", name, err)
		}
	}
	return nil
}
