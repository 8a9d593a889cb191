package finalize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// PerFilesystem is the evidence of a stage that treats each file system of the target, in the order
// of unmounting.
type PerFilesystem struct {
	Filesystems []FilesystemResult `json:"filesystems"`
}

// FilesystemResult is the outcome of a stage for one file system.
type FilesystemResult struct {
	Mountpoint string `json:"mount_point"`
	FSType     string `json:"fs_type"`
	Done       string `json:"done"`
	Bytes      uint64 `json:"bytes,omitempty"`      // trimmed
	Note       bool   `json:"note,omitempty"`       // not done, for a reason that is no error
	NotProven  string `json:"not_proven,omitempty"` // why the stage's statement is not proven
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

// IsNote reports whether something was not done.
func (p PerFilesystem) IsNote() bool {
	return slices.ContainsFunc(p.Filesystems, func(f FilesystemResult) bool { return f.Note })
}

// NotProven returns a sentence for each file system of which the stage proved nothing.
func (p PerFilesystem) NotProven() []string {
	var list []string
	for _, f := range p.Filesystems {
		if f.NotProven != "" {
			list = append(list, f.NotProven)
		}
	}
	return list
}

// each runs a step for every file system of the target, with the root of it open for as long as the
// step runs.
func (r *Release) each(step func(filesystem, *os.File) (FilesystemResult, error)) (Evidence, error) {
	var evidence PerFilesystem
	for _, f := range r.systems {
		result, err := withRoot(f, step)
		if err != nil {
			return evidence, err
		}
		result.Mountpoint, result.FSType = f.Point, f.FSType
		evidence.Filesystems = append(evidence.Filesystems, result)
	}
	return evidence, nil
}

// withRoot runs a step with the root of a file system. A covered one is reached when the mount on
// top of it is gone: see writeOutLate.
func withRoot(f filesystem, step func(filesystem, *os.File) (FilesystemResult, error)) (FilesystemResult, error) {
	dir, err := openMount(f.Mount)
	if errors.Is(err, errCovered) {
		return FilesystemResult{Done: "left to the unmount: another mount covers it", Note: true}, nil
	}
	if err != nil {
		return FilesystemResult{}, err
	}
	defer dir.Close()
	return step(f, dir)
}

// writeOutLate is remountReadOnly for a file system that was covered.
func (r *Release) writeOutLate(m mounts.Mount) error {
	at := slices.IndexFunc(r.systems, func(f filesystem) bool { return f.ID == m.ID })
	if at < 0 || r.systems[at].kind == inMemory || r.systems[at].ReadOnlySuper() || r.blind {
		return nil
	}
	now, err := current(m)
	if err != nil || now.ReadOnlySuper() {
		return err
	}
	dir, err := openMount(m)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(dir.Fd()))
	dir.Close()
	if err != nil {
		return lostWrite(m, err)
	}
	return mounts.SetReadOnly(m, true)
}

func lostWrite(m mounts.Mount, err error) error {
	return fmt.Errorf("writing %s out (syncfs): a write was lost, the device may be failing or full: %w", m.Point, err)
}

// outOfSight is why nothing is done to a superblock.
const outOfSight = "it may be in use outside of this PID namespace"

// trim discards the blocks that the file system does not use. A failure harms nothing, and is a
// note.
func trim(_ context.Context, r *Release) (Evidence, error) {
	return r.each(func(f filesystem, dir *os.File) (FilesystemResult, error) {
		if f.kind != stored {
			return FilesystemResult{Done: f.FSType + " is on no block device: nothing to trim", Note: true}, nil
		}
		if r.blind {
			return FilesystemResult{Done: "not trimmed: " + outOfSight, Note: true}, nil
		}
		area := struct{ start, length, minimum uint64 }{length: ^uint64(0)} // struct fstrim_range
		err := ioctl(dir, fiTrim, uintptr(unsafe.Pointer(&area)))
		if unsupported(err) {
			return FilesystemResult{Done: "the device or the file system does not discard", Note: true}, nil
		}
		if err != nil {
			return FilesystemResult{Done: fmt.Sprintf("the free space was not discarded (FITRIM: %v)", err), Note: true}, nil
		}
		return FilesystemResult{Done: fmt.Sprintf("%d bytes trimmed", area.length), Bytes: area.length}, nil
	})
}

// remountReadOnly writes everything out, reports any lost write, and makes the superblocks
// read-only, which empties the log.
func remountReadOnly(ctx context.Context, r *Release) (Evidence, error) {
	return r.each(func(f filesystem, dir *os.File) (FilesystemResult, error) {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return FilesystemResult{}, lostWrite(f.Mount, err)
		}
		if f.ReadOnlySuper() {
			return FilesystemResult{Done: "it is read-only (" + f.SuperOptions + ")"}, nil
		}
		if r.blind {
			return FilesystemResult{Done: "written out, and left writable: " + outOfSight, Note: true}, nil
		}
		dir.Close() // before a search for holders, which would find it
		err := mounts.SetReadOnly(f.Mount, true)
		if err != nil && f.kind != stored && !errors.Is(err, unix.EBUSY) {
			text := fmt.Sprintf("%s on %s could not be made read-only: %v", f.FSType, f.Point, err)
			return FilesystemResult{Done: text, NotProven: text}, nil
		}
		if err != nil {
			return FilesystemResult{}, r.explainBusy(ctx, f.Mount, err)
		}
		r.changed = append(r.changed, f.Mount)
		now, err := current(f.Mount)
		if err != nil {
			return FilesystemResult{}, err
		}
		if !now.ReadOnlySuper() {
			return FilesystemResult{}, fmt.Errorf("remounting %s read-only: the kernel reported success, but the superblock is %q", f.Point, now.SuperOptions)
		}
		return FilesystemResult{Done: "written out, read-only (" + now.SuperOptions + ")"}, nil
	})
}

// restore makes writable again the superblocks that remountReadOnly changed: a target that is
// refused is left as it was.
func (r *Release) restore() error {
	var errs []error
	for _, m := range slices.Backward(r.changed) {
		if err := mounts.SetReadOnly(m, false); err != nil {
			errs = append(errs, fmt.Errorf("making %s writable again: %w", m.Point, err))
		}
	}
	return errors.Join(errs...)
}

var errNotMounted = errors.New("it is not mounted any more")

// current returns a mount as it is now.
func current(m mounts.Mount) (mounts.Mount, error) {
	list, err := mounts.OwnMounts()
	if err != nil {
		return m, err
	}
	now, ok := mounts.Find(list, m.ID)
	if !ok {
		return m, fmt.Errorf("looking at %s again: %w", m.Point, errNotMounted)
	}
	return now, nil
}

// explainBusy replaces EBUSY by a HeldError that names the holders.
func (r *Release) explainBusy(ctx context.Context, m mounts.Mount, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	report, scanErr := holders.Scan(ctx, r.held)
	if scanErr != nil {
		return errors.Join(err, scanErr)
	}
	held := &HeldError{Holders: report.Holders, Err: err, Why: "the kernel refuses"}
	if frozen, probeErr := frozenNow(m); probeErr == nil && frozen {
		held.Holders = append(held.Holders, frozenHolder(m))
	}
	if len(held.Holders) == 0 {
		held.Holders = []holders.Holder{holders.KernelHolder(m.Point, report, err.Error())}
	}
	return held
}

// frozenNow reports whether somebody keeps a file system frozen.
func frozenNow(m mounts.Mount) (bool, error) {
	now, err := current(m)
	if err != nil {
		return false, err
	}
	return mounts.Frozen(now)
}

func frozenHolder(m mounts.Mount) holders.Holder {
	return holders.FrozenHolder(m, "the kernel refuses to reconfigure the superblock: device or resource busy")
}

// freezeThawEach proves that nobody keeps a file system frozen: an unmount under a freeze would
// leave the superblock alive for good. It asks without freezing first. The freeze of a read-only
// superblock then writes nothing; that the log is empty is for proveClean to prove.
func freezeThawEach(_ context.Context, r *Release) (Evidence, error) {
	return r.each(func(f filesystem, dir *os.File) (FilesystemResult, error) {
		frozen, err := frozenNow(f.Mount)
		if err != nil && f.kind == stored {
			return FilesystemResult{}, fmt.Errorf("asking whether %s is frozen: %w", f.Point, err)
		}
		if err == nil && !frozen && r.blind {
			return FilesystemResult{Done: "nobody keeps it frozen; not frozen here: " + outOfSight, Note: true}, nil
		}
		if err == nil && !frozen {
			err = freezeThaw(dir)
		}
		switch {
		case frozen || errors.Is(err, unix.EBUSY):
			return FilesystemResult{}, &HeldError{Holders: []holders.Holder{frozenHolder(f.Mount)}, Why: "someone froze it and has not thawed it", Err: err}
		case unsupported(err) || err != nil && f.kind != stored:
			return FilesystemResult{Done: f.FSType + " does not freeze", Note: true}, nil
		case err != nil:
			return FilesystemResult{}, fmt.Errorf("freezing and thawing %s: %w", f.Point, err)
		}
		return FilesystemResult{Done: "nobody keeps it frozen: frozen and thawed"}, nil
	})
}
