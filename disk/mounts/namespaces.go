package mounts

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Namespace is a mount namespace and the mounts in it.
type Namespace struct {
	ID     uint64 // never reused; 0 where the kernel has none
	Inode  uint64 // of the namespace file; reused
	Own    bool   // the namespace of the calling thread
	Mounts []Mount
}

// Name returns the namespace's name, see [NamespaceName].
func (ns Namespace) Name() string { return NamespaceName(ns.Inode) }

// NamespaceName returns the name of the mount namespace with an inode number as the links in
// /proc/PID/ns show it, such as "mnt:[4026532001]".
func NamespaceName(inode uint64) string { return fmt.Sprintf("mnt:[%d]", inode) }

// Snapshot holds the mounts of all namespaces at one moment.
type Snapshot struct {
	Namespaces []Namespace
	// Complete says that the kernel enumerated the namespaces, so that those without a process are
	// in the list too. When false, the list was put together from /proc.
	Complete bool
	// Unlisted is the kernel's answer to the question for all namespaces where it is not Complete:
	// that this process may not ask, or that it knows no such question.
	Unlisted error
	// Unreadable names everything that could not be looked at, with the reason.
	Unreadable []string
}

// All returns the mounts of every namespace, each with the namespace it is in.
func (s *Snapshot) All(yield func(Namespace, Mount) bool) {
	for _, ns := range s.Namespaces {
		for _, m := range ns.Mounts {
			if !yield(ns, m) {
				return
			}
		}
	}
}

// OfSuperblock returns the mounts of one superblock, in every namespace. dev is the number that
// mountinfo shows: each superblock has its own, with or without a block device beneath it.
func (s *Snapshot) OfSuperblock(dev DevNum) iter.Seq2[Namespace, Mount] {
	return func(yield func(Namespace, Mount) bool) {
		for ns, m := range s.All {
			if m.Dev == dev && !yield(ns, m) {
				return
			}
		}
	}
}

// Own returns the calling thread's namespace.
func (s *Snapshot) Own() Namespace {
	i := slices.IndexFunc(s.Namespaces, func(ns Namespace) bool { return ns.Own })
	if i < 0 {
		return Namespace{}
	}
	return s.Namespaces[i]
}

// List returns the mounts of every mount namespace that the caller may see, also those that no
// process is in. Where the kernel cannot enumerate namespaces (before 6.12) they are collected from
// /proc.
func List(ctx context.Context) (*Snapshot, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{Namespaces: []Namespace{own}}
	err = snapshot.addOthers(ctx)
	if errors.Is(err, errNoEnumeration) {
		snapshot.Unlisted = err
		return snapshot, snapshot.addFromProc(ctx)
	}
	snapshot.Complete = err == nil
	return snapshot, err
}

// OwnMounts returns the mounts of the calling thread's namespace.
func OwnMounts() ([]Mount, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mounts of this namespace (is /proc mounted?): %w", err)
	}
	defer f.Close()
	return Parse(f)
}

func ownNamespace() (Namespace, error) {
	list, err := OwnMounts()
	if err != nil {
		return Namespace{}, err
	}
	ns := Namespace{Own: true, Mounts: list}
	ns.ID, ns.Inode, err = identity("/proc/thread-self/ns/mnt")
	return ns, err
}

// identity returns the id, 0 where the kernel has none, and the inode number of the namespace that
// a file stands for.
func identity(path string) (id, inode uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("opening a mount namespace: %w", err)
	}
	defer f.Close()
	return identityOf(int(f.Fd()))
}

func identityOf(fd int) (id, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, fmt.Errorf("reading the inode of a mount namespace: %w", err)
	}
	id, err = namespaceID(fd)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return 0, st.Ino, nil
	}
	return id, st.Ino, err
}

// errNoEnumeration says that the kernel does not list mount namespaces to this process.
var errNoEnumeration = errors.New("the kernel does not enumerate mount namespaces")

// noEnumeration reports whether err says that the kernel cannot enumerate, or this process may not.
func noEnumeration(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

func (s *Snapshot) addOthers(ctx context.Context) error {
	buf := make([]byte, 4096)
	return EachNamespace(ctx, func(fd int) error {
		ns := Namespace{}
		var err error
		if ns.ID, ns.Inode, err = identityOf(fd); err != nil {
			return err
		}
		ns.Mounts, buf, err = readNamespace(ns.ID, buf)
		if errors.Is(err, unix.ENOENT) {
			return nil // it ended meanwhile, and its mounts with it
		}
		if err != nil && noEnumeration(err) {
			return fmt.Errorf("%w: %w", errNoEnumeration, err)
		}
		if err != nil {
			return err
		}
		s.Namespaces = append(s.Namespaces, ns)
		return nil
	})
}

// openOwn opens the mount namespace of the calling thread.
func openOwn() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening the own mount namespace: %w", err)
	}
	return fd, nil
}

// EachNamespace calls visit with a file descriptor of every mount namespace but the calling
// thread's own. The descriptor is closed when visit returns.
func EachNamespace(ctx context.Context, visit func(fd int) error) error {
	for _, direction := range []uintptr{nsMountNext, nsMountPrev} {
		fd, err := openOwn()
		if err != nil {
			return err
		}
		if err := walkNamespaces(ctx, fd, direction, visit); err != nil {
			return err
		}
	}
	return nil
}

// walkNamespaces owns fd.
func walkNamespaces(ctx context.Context, fd int, direction uintptr, visit func(fd int) error) error {
	for {
		next, err := neighbour(fd, direction)
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil && noEnumeration(err) {
			return fmt.Errorf("%w: %w", errNoEnumeration, err)
		}
		if err != nil {
			return fmt.Errorf("opening the next mount namespace: %w", err)
		}
		fd = next
		err = ctx.Err()
		if err == nil {
			err = visit(fd)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
	}
}

func readNamespace(ns uint64, buf []byte) ([]Mount, []byte, error) {
	ids, err := listIDs(ns)
	if err != nil {
		return nil, buf, err
	}
	list := make([]Mount, 0, len(ids))
	for _, id := range ids {
		var m Mount
		m, buf, err = statmount(ns, id, buf)
		if errors.Is(err, unix.ENOENT) {
			continue // unmounted meanwhile
		}
		if err != nil {
			return nil, buf, err
		}
		list = append(list, m)
	}
	return list, buf, nil
}
