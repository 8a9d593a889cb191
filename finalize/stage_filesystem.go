package finalize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// fiTrim is FITRIM of linux/fs.h, which golang.org/x/sys does not carry; the same
// on all architectures but mips, powerpc and sparc.
const fiTrim = 0xC0185879

// PerFilesystem is the evidence of a stage that treats each file system of the
// tree, in the order of unmounting.
type PerFilesystem struct {
	Filesystems []FilesystemResult `json:"filesystems"`
}

// FilesystemResult is what was done to one file system.
type FilesystemResult struct {
	Mountpoint string `json:"mount_point"`
	FSType     string `json:"fs_type"`
	Done       string `json:"done"`
	Bytes      uint64 `json:"bytes,omitempty"` // trimmed
	Note       bool   `json:"note,omitempty"`  // not done, for a reason that is no error
}

// Line implements Evidence.
func (p PerFilesystem) Line() string {
	var parts []string
	for _, f := range p.Filesystems {
		if len(p.Filesystems) == 1 {
			return f.Done
		}
		parts = append(parts, f.Mountpoint+": "+f.Done)
	}
	return strings.Join(parts, "; ")
}

// IsNote says whether something was not done.
func (p PerFilesystem) IsNote() bool {
	for _, f := range p.Filesystems {
		if f.Note {
			return true
		}
	}
	return false
}

// filesystems returns one mount for each super block of the tree that is stored
// on a device. Others (proc, tmpfs, overlay) have nothing to trim or flush, and
// are not ours to freeze.
func (r *Release) filesystems() []mounts.Mount {
	var list []mounts.Mount
	seen := map[mounts.DevNum]bool{}
	for _, m := range r.Tree {
		if holders.Stored(m) && !seen[m.Dev] {
			seen[m.Dev] = true
			list = append(list, m)
		}
	}
	return list
}

// each runs step on every file system, with its root directory open.
func (r *Release) each(step func(m mounts.Mount, dir *os.File) (FilesystemResult, error)) (Evidence, error) {
	var evidence PerFilesystem
	for _, m := range r.filesystems() {
		result, err := withRoot(m, step)
		if err != nil {
			return evidence, err
		}
		result.Mountpoint, result.FSType = m.Point, m.FSType
		evidence.Filesystems = append(evidence.Filesystems, result)
	}
	return evidence, nil
}

func withRoot(m mounts.Mount, step func(mounts.Mount, *os.File) (FilesystemResult, error)) (FilesystemResult, error) {
	dir, err := os.OpenFile(m.Point, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return FilesystemResult{}, fmt.Errorf("opening the root of the file system: %w", err)
	}
	defer dir.Close()
	return step(m, dir)
}

func ioctl(f *os.File, request, arg uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, arg)
	if errno != 0 {
		return errno
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS)
}

// trim discards what the file system does not use.
func trim(_ context.Context, r *Release) (Evidence, error) {
	return r.each(func(m mounts.Mount, dir *os.File) (FilesystemResult, error) {
		area := struct{ start, length, minimum uint64 }{length: ^uint64(0)} // struct fstrim_range
		err := ioctl(dir, fiTrim, uintptr(unsafe.Pointer(&area)))
		if unsupported(err) {
			return FilesystemResult{Done: "the device or the file system does not discard", Note: true}, nil
		}
		if err != nil {
			return FilesystemResult{}, fmt.Errorf("discarding the free space of %s (FITRIM): %w", m.Point, err)
		}
		return FilesystemResult{Done: fmt.Sprintf("%d bytes trimmed", area.length), Bytes: area.length}, nil
	})
}

// remountReadOnly writes everything out, learns of any lost write, and makes the
// super blocks read-only, which is what empties the log.
func remountReadOnly(ctx context.Context, r *Release) (Evidence, error) {
	return r.each(func(m mounts.Mount, dir *os.File) (FilesystemResult, error) {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return FilesystemResult{}, fmt.Errorf("writing %s out (syncfs): a write was lost, the device may be failing or full: %w", m.Point, err)
		}
		dir.Close() // before a search for holders, which would find it
		if err := mounts.SetReadOnly(m, true); err != nil {
			return FilesystemResult{}, r.explainBusy(ctx, m, err)
		}
		if !m.ReadOnlySuper() {
			r.changed = append(r.changed, m)
		}
		return checkReadOnly(m)
	})
}

// restore makes writable again what remountReadOnly changed: a target that is
// refused is left as it was.
func (r *Release) restore() error {
	var errs []error
	for _, m := range r.changed {
		if err := mounts.SetReadOnly(m, false); err != nil {
			errs = append(errs, fmt.Errorf("making %s writable again: %w", m.Point, err))
		}
	}
	return errors.Join(errs...)
}

func checkReadOnly(m mounts.Mount) (FilesystemResult, error) {
	list, err := mounts.OwnMounts()
	if err != nil {
		return FilesystemResult{}, err
	}
	now, ok := mounts.Find(list, m.ID)
	if !ok || !now.ReadOnlySuper() {
		return FilesystemResult{}, fmt.Errorf("remounting %s read-only: the kernel reported success, but the super block is %q", m.Point, now.SuperOptions)
	}
	return FilesystemResult{Done: "written out, read-only (" + now.SuperOptions + ")"}, nil
}

// explainBusy turns EBUSY into who holds the target.
func (r *Release) explainBusy(ctx context.Context, m mounts.Mount, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	report, scanErr := holders.Scan(ctx, r.held)
	if scanErr != nil {
		return errors.Join(err, scanErr)
	}
	held := &HeldError{Holders: report.Holders, Err: err, Why: "the kernel refuses"}
	if len(report.Certain()) == 0 && isFrozen(m) {
		held.Holders = append(held.Holders, holders.FrozenHolder(m, frozenEvidence))
	}
	if len(held.Holders) == 0 {
		held.Holders = []holders.Holder{holders.KernelHolder(m.Point, report, err.Error())}
	}
	return held
}

const frozenEvidence = "FIFREEZE: device or resource busy"

// isFrozen reports whether somebody has frozen the file system of m, by trying to.
func isFrozen(m mounts.Mount) bool {
	dir, err := os.OpenFile(m.Point, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	defer dir.Close()
	return errors.Is(holders.FreezeThaw(dir), unix.EBUSY)
}

// freezeThaw freezes and thaws: that fails when someone else's freeze is in
// force, under which an unmount would leave the super block alive for good.
func freezeThaw(_ context.Context, r *Release) (Evidence, error) {
	return r.each(func(m mounts.Mount, dir *os.File) (FilesystemResult, error) {
		err := holders.FreezeThaw(dir)
		if unsupported(err) {
			return FilesystemResult{Done: m.FSType + " does not freeze", Note: true}, nil
		}
		if errors.Is(err, unix.EBUSY) {
			return FilesystemResult{}, &HeldError{Holders: []holders.Holder{holders.FrozenHolder(m, frozenEvidence)}, Why: "someone froze it and has not thawed it", Err: err}
		}
		if err != nil {
			return FilesystemResult{}, fmt.Errorf("freezing and thawing %s: %w", m.Point, err)
		}
		return FilesystemResult{Done: "frozen and thawed"}, nil
	})
}
