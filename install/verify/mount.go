package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/fsinfo"
	"installer/disk/mounts"
)

// Volume is a file system's place on the disk.
type Volume struct {
	Disk       *os.File // open for reading
	Start      int64    // bytes from the start of the disk
	Size       int64    // bytes
	SectorSize int      // bytes
	Filesystem fsinfo.Type
	Boot       *Volume // to be seen in the directory boot of this one; nil: there is none
}

// BootError reports a separate /boot that cannot be mounted, while the root can be.
type BootError struct{ Err error }

func (e *BootError) Error() string { return e.Err.Error() }
func (e *BootError) Unwrap() error { return e.Err }

// Root is a root file system that can be looked at.
type Root struct {
	Dir   *os.File     // its root directory
	Path  string       // where programs of this machine find it; "" where they cannot
	Close func() error // gives everything back; Dir is closed by it
}

// RootOpener shows a root file system without changing a bit of it, its log included. It separates
// the checks that can be made anywhere from those that need a kernel which mounts the file system.
type RootOpener interface {
	OpenRoot(ctx context.Context, v Volume) (*Root, error)
}

// Mounter is a [RootOpener] that mounts, in a mount namespace of this process's own, which it
// expects: when the process dies, the kernel takes everything down. It needs root.
type Mounter struct {
	WorkDir string // directory for the mount point and device nodes, created if need be
}

// acquired lists resources, which are released in the opposite order.
type acquired []func() error

func (a *acquired) add(undo func() error) { *a = append(*a, undo) }

func (a *acquired) release() error {
	var errs []error
	for n := len(*a) - 1; n >= 0; n-- {
		errs = append(errs, (*a)[n]())
	}
	*a = nil
	return errors.Join(errs...)
}

// OpenRoot lays a read-only loop device over the volume and mounts it read-only, and its Boot upon
// it. A failure for a reason that is this machine's and not the disk's is an [*UnavailableError].
func (m Mounter) OpenRoot(_ context.Context, v Volume) (root *Root, err error) {
	var held acquired
	defer func() {
		if err != nil {
			err = errors.Join(err, held.release())
		}
	}()
	if err := m.openWorkDir(&held); err != nil {
		return nil, &UnavailableError{err}
	}
	point := filepath.Join(m.WorkDir, "root")
	if err := m.mountVolume(v, point, &held); err != nil {
		return nil, err
	}
	if v.Boot != nil {
		if err := m.mountBoot(*v.Boot, point, &held); err != nil {
			return nil, &BootError{err}
		}
	}
	dir, err := os.Open(point)
	if err != nil {
		return nil, fmt.Errorf("opening the root: %w", err)
	}
	held.add(dir.Close)
	return &Root{Dir: dir, Path: point, Close: held.release}, nil
}

// mountBoot mounts a volume on the directory boot of a root, which must be one: a link would lead
// to this machine's.
func (m Mounter) mountBoot(v Volume, root string, held *acquired) error {
	point := filepath.Join(root, "boot")
	info, err := os.Lstat(point)
	if err != nil {
		return fmt.Errorf("looking for the directory boot: %w", err)
	}
	if !info.IsDir() {
		return errors.New("the root file system has /boot, and it is no directory to mount on")
	}
	return m.mountVolume(v, point, held)
}

func (m Mounter) mountVolume(v Volume, point string, held *acquired) error {
	part := disk.Partition{Name: string(v.Filesystem), Start: v.Start, Size: v.Size}
	device, err := disk.AttachReadOnly(v.Disk, v.SectorSize, part, filepath.Join(m.WorkDir, "dev"))
	if err != nil {
		return &UnavailableError{err}
	}
	held.add(device.Detach)
	if err := mountReadOnly(v.Filesystem, device.Path(), point); err != nil {
		return err
	}
	held.add(func() error { return unmount(point) })
	return nil
}

func mountReadOnly(fs fsinfo.Type, device, point string) error {
	options, err := noReplay(fs)
	if err != nil {
		return err
	}
	err = mounts.Make(mounts.Options{Source: device, FSType: string(fs), Target: point, ReadOnly: true, Data: options})
	switch {
	case errors.Is(err, unix.ENODEV): // of mount(2): there is no such file system
		return &UnavailableError{fmt.Errorf("this kernel cannot mount %s: %w", fs, err)}
	case errors.Is(err, unix.EPERM):
		return &UnavailableError{fmt.Errorf("this process may not mount: %w", err)}
	case err != nil:
		return fmt.Errorf("mounting the %s read-only: %w", fs, err)
	}
	return nil
}

// openWorkDir mounts a tmpfs for the mount point, on a directory that is left behind: another
// installer may use it.
func (m Mounter) openWorkDir(held *acquired) error {
	if err := os.MkdirAll(m.WorkDir, 0o700); err != nil {
		return fmt.Errorf("making a place to mount the root: %w", err)
	}
	tmpfs := mounts.Options{Source: "installer", FSType: "tmpfs", Target: m.WorkDir, Data: []string{"mode=0700", "size=1m"}}
	if err := mounts.Make(tmpfs); err != nil {
		return fmt.Errorf("making a place to mount the root: %w", err)
	}
	held.add(func() error { return unmount(m.WorkDir) })
	for _, name := range []string{"root", "dev"} {
		if err := os.Mkdir(filepath.Join(m.WorkDir, name), 0o700); err != nil {
			return fmt.Errorf("making a place to mount the root: %w", err)
		}
	}
	return nil
}

// noReplay returns the options with which a file system leaves its log alone, also where the kernel
// has another copy of it mounted.
func noReplay(fs fsinfo.Type) ([]string, error) {
	switch fs {
	case fsinfo.XFS:
		return []string{"norecovery", "nouuid"}, nil
	case fsinfo.Ext4:
		return []string{"noload"}, nil
	case fsinfo.Btrfs:
		return []string{"rescue=nologreplay"}, nil
	}
	return nil, fmt.Errorf("mounting %q read-only: it is not known how to leave its log alone", fs)
}

// unmount unmounts the file system on path, by one call.
func unmount(path string) error {
	m, err := mounts.At(path)
	if err != nil {
		return err
	}
	return mounts.Unmount(m)
}

// openRoot mounts the root for the checks that follow.
func (i *inspection) openRoot(ctx context.Context, f *findings) error {
	v := i.source.volume(*i.rootfs, i.super.Type)
	if i.boot != nil {
		boot := i.source.volume(*i.boot, i.bootSuper.Type)
		v.Boot = &boot
	}
	root, err := i.opts.Root.OpenRoot(ctx, v)
	if bootErr := (*BootError)(nil); errors.As(err, &bootErr) && !errors.As(err, new(*UnavailableError)) {
		f.faultWith("the kernel's log says more: dmesg", i.boot.String(), "it cannot be mounted as /boot: %v", err)
		v.Boot = nil
		root, err = i.opts.Root.OpenRoot(ctx, v)
	}
	if unavailable := (*UnavailableError)(nil); errors.As(err, &unavailable) {
		i.opts.Root, i.opts.NoRoot = nil, err.Error()+"; a virtual machine can, with --image"
		f.result.Status, f.result.Detail = NotChecked, i.opts.NoRoot
		return nil
	}
	if err != nil {
		f.faultWith("the kernel's log says more: dmesg", i.rootfs.String(), "it cannot be mounted: %v", err)
		return nil
	}
	i.root, i.tree = root, tree{root: root.Dir, ledger: i.ledger}
	if _, err := i.tree.read("ostree/repo/config"); errors.Is(err, unix.EOPNOTSUPP) {
		return i.leaveProtected(f)
	}
	f.say("%s, without replaying its log", i.super.Type)
	return nil
}

// leaveProtected gives back a root whose files have fs-verity, which this kernel cannot read.
func (i *inspection) leaveProtected(f *findings) error {
	root := i.root
	i.root, i.opts.Root = nil, nil
	i.opts.NoRoot = "its files have fs-verity, and this kernel, which has none (CONFIG_FS_VERITY), reads no such file; a virtual machine can, with --image"
	f.result.Status, f.result.Detail = NotChecked, i.opts.NoRoot
	return root.Close()
}
