package mounts

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Options describe a mount to be made.
type Options struct {
	Source   string // a block device, or a word for those that have none
	FSType   string
	Target   string // an existing directory; no symlink is followed in it
	ReadOnly bool
	Data     []string // options of the file system, "key" or "key=value"
}

// Make makes a private mount. When the kernel refuses, its own explanation is in the error.
func Make(o Options) error {
	fail := func(op string, fsfd int, err error) error {
		return &Error{Op: op, Source: o.Source, Target: o.Target, Flags: o.FSType, Detail: kernelLog(fsfd), Err: err}
	}
	target, err := openPath("/", o.Target)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fsfd, err := unix.Fsopen(o.FSType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("fsopen", -1, err)
	}
	defer unix.Close(fsfd)
	if err := configure(fsfd, o); err != nil {
		return fail("fsconfig", fsfd, err)
	}
	attr := 0
	if o.ReadOnly {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fail("fsmount", fsfd, err)
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fail("move_mount", -1, err)
	}
	return makePrivate(mfd, o.Target)
}

// makePrivate works on the new mount itself, which a name might no longer mean.
func makePrivate(mfd int, target string) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(mfd, "", unix.AT_EMPTY_PATH, &attr); err != nil && !errors.Is(err, unix.ENOSYS) {
		return &Error{Op: "mount_setattr", Target: target, Flags: "MS_PRIVATE", Err: err}
	}
	return nil
}

func configure(fsfd int, o Options) error {
	if o.Source != "" {
		if err := unix.FsconfigSetString(fsfd, "source", o.Source); err != nil {
			return err
		}
	}
	data := o.Data
	if o.ReadOnly {
		data = append([]string{"ro"}, data...)
	}
	for _, option := range data {
		key, value, hasValue := strings.Cut(option, "=")
		set := func() error { return unix.FsconfigSetFlag(fsfd, key) }
		if hasValue {
			set = func() error { return unix.FsconfigSetString(fsfd, key, value) }
		}
		if err := set(); err != nil {
			return fmt.Errorf("option %q: %w", option, err)
		}
	}
	return unix.FsconfigCreate(fsfd)
}

// kernelLog returns the kernel's messages about a failed fs context.
func kernelLog(fsfd int) string {
	if fsfd < 0 {
		return ""
	}
	var lines []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			return strings.Join(lines, "; ")
		}
		lines = append(lines, strings.TrimSpace(string(buf[:n])))
	}
}

// SetPropagation changes how mounts under path propagate; flags are one of MS_SHARED, MS_SLAVE,
// MS_PRIVATE, with MS_REC for the whole tree.
func SetPropagation(path string, flags uintptr) error {
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return &Error{Op: "mount", Target: path, Flags: FlagNames(flags), Err: err,
			Detail: "the path must be a mount point; in a chroot, bind it onto itself first"}
	}
	return nil
}

// SetPrivate cuts a mount off from its peers and masters: no unmount of a mount that stands on it
// is passed on any more.
func SetPrivate(m Mount) error {
	p, err := OpenPoint(m)
	if err != nil {
		return err
	}
	defer p.Close()
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(p.dir, p.name, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		return &Error{Op: "mount_setattr", Target: m.Point, Flags: "MS_PRIVATE", Err: err}
	}
	return nil
}

// SetReadOnly makes the superblock of m read-only or writable. It changes no flag of the mount and
// no other flag of the superblock, which mount(2) would reset. The kernel writes dirty data out
// first. EBUSY means that a file is open for writing, or deleted and still open, or that the file
// system is frozen.
func SetReadOnly(m Mount, readOnly bool) error {
	flag := "rw"
	if readOnly {
		flag = "ro"
	}
	p, err := OpenPoint(m)
	if err != nil {
		return err
	}
	defer p.Close()
	fail := func(op string, fsfd int, err error) error {
		return &Error{Op: op, Source: m.Source, Target: m.Point, Flags: flag, Detail: kernelLog(fsfd), Err: err}
	}
	fsfd, err := unix.Fspick(unix.AT_FDCWD, p.path(), unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW|unix.FSPICK_NO_AUTOMOUNT)
	if err != nil {
		return fail("fspick", -1, err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigSetFlag(fsfd, flag); err != nil {
		return fail("fsconfig", fsfd, err)
	}
	if err := unix.FsconfigReconfigure(fsfd); err != nil {
		return fail("fsconfig (reconfigure)", fsfd, err)
	}
	return nil
}

// Frozen reports whether the file system of m is frozen. It freezes nothing: the kernel refuses
// every reconfiguration of a frozen superblock with EBUSY, also one that changes nothing.
func Frozen(m Mount) (bool, error) {
	err := SetReadOnly(m, m.ReadOnlySuper())
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	return false, err
}

// openPath opens a path below root as a place, following no symlink anywhere.
func openPath(root, path string) (int, error) {
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(rootFD)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	relative := strings.TrimLeft(path, "/")
	if relative == "" {
		relative = "."
	}
	fd, err := unix.Openat2(rootFD, relative, &how)
	if err != nil {
		return -1, fmt.Errorf("opening %s without following symlinks (give the path that it resolves to): %w",
			path, &os.PathError{Op: "openat2", Path: path, Err: err})
	}
	return fd, nil
}
