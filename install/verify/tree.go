package verify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize"
	"installer/rootfs/ostree"
)

// textLimit is the largest small file that is read, in bytes.
const textLimit = 4 << 20

// tree is the root file system, in which every path is resolved beneath its root through no
// symbolic link. Open files are in the ledger.
type tree struct {
	root   *os.File
	ledger *finalize.Ledger
}

// open opens a path beneath the root. O_NONBLOCK is among the flags: a fifo must not hold the check
// up.
func (t tree) open(name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(t.root.Fd()), name, &how)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat2(int(t.root.Fd()), name, &how)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"+name), nil
}

// with opens a path for the time of fn.
func (t tree) with(name string, flags int, fn func(*os.File) error) error {
	f, err := t.open(name, flags)
	if err != nil {
		return err
	}
	defer t.ledger.Opened("fd", name)()
	defer f.Close()
	return fn(f)
}

// regular opens a regular file for the time of fn.
func (t tree) regular(name string, fn func(f *os.File, size int64) error) error {
	return t.with(name, 0, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New("it is not a regular file")
		}
		return fn(f, info.Size())
	})
}

// read reads a small regular file.
func (t tree) read(name string) ([]byte, error) {
	var data []byte
	err := t.regular(name, func(f *os.File, size int64) (err error) {
		if size > textLimit {
			return fmt.Errorf("it has %d bytes, more than anything sensible", size)
		}
		data, err = io.ReadAll(io.LimitReader(f, textLimit))
		return err
	})
	return data, err
}

// at calls fn with the directory that holds name, and name's last part.
func (t tree) at(name string, fn func(parent int, base string) error) error {
	dir, base := path.Split(name)
	if dir == "" {
		dir = "."
	}
	return t.with(strings.TrimSuffix(dir, "/"), unix.O_DIRECTORY, func(f *os.File) error {
		return fn(int(f.Fd()), base)
	})
}

// stat describes name itself, also where it is a link.
func (t tree) stat(name string) (st unix.Stat_t, err error) {
	err = t.at(name, func(parent int, base string) error {
		return unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return st, err
}

// isDir reports whether name is a directory.
func (t tree) isDir(name string) bool {
	st, err := t.stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// readlink reads a symbolic link.
func (t tree) readlink(name string) (target string, err error) {
	err = t.at(name, func(parent int, base string) error {
		target, err = readLinkAt(parent, base)
		return err
	})
	return target, err
}

func readLinkAt(parent int, base string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// names lists a directory in byte order.
func (t tree) names(name string) (names []string, err error) {
	err = t.with(name, unix.O_DIRECTORY, func(f *os.File) error {
		names, err = f.Readdirnames(-1)
		return err
	})
	slices.Sort(names)
	return names, err
}

// file is a file or directory with all that an object's checksum covers but the content.
type file struct {
	stat   unix.Stat_t
	target string // of a symbolic link
	xattrs []ostree.Xattr
}

func (f file) kind() uint32 { return f.stat.Mode & unix.S_IFMT }

// fileAt describes base in the directory parent.
func fileAt(parent int, base string) (file, error) {
	var f file
	if err := unix.Fstatat(parent, base, &f.stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return f, err
	}
	var err error
	if f.kind() == unix.S_IFLNK {
		if f.target, err = readLinkAt(parent, base); err != nil {
			return f, err
		}
	}
	// There is no call that takes a descriptor and reads the attributes of a link.
	f.xattrs, err = readXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", parent, base))
	return f, err
}

// readXattrs reads all extended attributes, sorted, without empty ones, as the repository format
// counts them.
func readXattrs(name string) ([]ostree.Xattr, error) {
	size, err := unix.Llistxattr(name, nil)
	if size == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(name, list); err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	var xattrs []ostree.Xattr
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(name, key, value)
		if err != nil {
			return nil, fmt.Errorf("reading the extended attribute %s: %w", key, err)
		}
		if n > 0 {
			xattrs = append(xattrs, ostree.Xattr{Name: key, Value: slices.Clone(value[:n])})
		}
	}
	slices.SortFunc(xattrs, func(a, b ostree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs, nil
}
