package holders

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Examine searches for the holders of the target that a path leads to. Of a block device it also
// reports a superblock that lives, or a claim of another program, with no holder that can be named.
func Examine(ctx context.Context, path string) (Report, error) {
	subject, err := Resolve(ctx, path)
	if err != nil {
		return Report{}, err
	}
	if subject.Mount != nil {
		return examineMount(ctx, subject)
	}
	return examineDevice(ctx, subject)
}

func examineMount(ctx context.Context, subject Subject) (Report, error) {
	report, err := Scan(ctx, subject.Target)
	if err != nil {
		return report, err
	}
	report.unseen(subject.unseen...)
	if subject.Target.Probe != nil {
		report.addFrozen(*subject.Mount)
	}
	report.judge()
	return report, nil
}

// addFrozen looks for a freeze, where the type of the file system shows one.
func (r *Report) addFrozen(m mounts.Mount) {
	frozen, evidence := IsFrozen(m)
	if evidence == "" {
		return
	}
	r.Searched = append(r.Searched, Frozen)
	if frozen {
		r.Holders = append(r.Holders, FrozenHolder(m, evidence))
	}
}

func examineDevice(ctx context.Context, subject Subject) (Report, error) {
	report, err := Scan(ctx, subject.Target)
	if err != nil {
		return report, err
	}
	report.unseen(subject.unseen...)
	report.Searched = append(report.Searched, BlockClaim, Kernel)
	report.Holders = append(report.Holders, subject.stacked...)
	dead, err := report.addClaims(subject.Blocks)
	if err != nil {
		return report, err
	}
	report.judge()
	if dead && len(report.Certain()) == 0 {
		// The kernel's own answer makes up for unreadable processes.
		report.Verdict = Free
	}
	return report, nil
}

// addClaims explains a claim on a device, or a superblock that lives, that none of the holders
// found so far explains. dead reports that neither is there. A whole disk that opens exclusively
// proves that no partition of it is claimed, so that none needs to be opened.
func (r *Report) addClaims(blocks []Block) (dead bool, err error) {
	dead, claimed := true, true
	for i, b := range blocks {
		signs, err := r.signs(b, claimed)
		if err != nil {
			return false, err
		}
		if i == 0 && signs != nil {
			claimed = signs.Claimed
		}
		if signs == nil {
			dead = false
			continue
		}
		if !signs.Claimed && !signs.Alive() {
			continue
		}
		dead = false
		if len(r.Certain()) == 0 && (i > 0 || !r.partitionExplains(blocks)) {
			r.addUnexplained(b, *signs)
		}
	}
	return dead, nil
}

// partitionExplains reports whether a partition of the disk, the first of blocks, is claimed: the
// claim shows on the disk too, and is named at the partition.
func (r *Report) partitionExplains(blocks []Block) bool {
	for _, b := range blocks[1:] {
		if claimed, err := isClaimed(b); err == nil && claimed {
			return true
		}
	}
	return false
}

// signs returns the signs of life of a device, nil where they could not be read. Unless ask is set,
// the device is known not to be claimed.
func (r *Report) signs(b Block, ask bool) (*Liveness, error) {
	var signs Liveness
	var err error
	if signs.Entries, signs.Threads, err = kernelSigns(b.Number); err != nil {
		return nil, err
	}
	if !ask {
		return &signs, nil
	}
	signs.Claimed, err = isClaimed(b)
	if unreadable(err) {
		r.unseen(Unseen{Spot: Devices, Subject: "claim on " + b.Path, Reason: err.Error(), Count: 1})
		if signs.Alive() {
			return &signs, nil
		}
		return nil, nil
	}
	return &signs, err
}

// unreadable reports whether a device could not be looked at, for reasons that lie in the device or
// in the place of this process.
func unreadable(err error) bool {
	for _, errno := range []error{fs.ErrNotExist, fs.ErrPermission, unix.EIO, unix.ENXIO, unix.ENODEV, unix.ENOMEDIUM, unix.EROFS, errOtherDevice} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// addUnexplained names the claimer of a device, or the kernel for a superblock that lives though
// the search found nobody.
func (r *Report) addUnexplained(b Block, signs Liveness) {
	if !signs.Alive() {
		r.Holders = append(r.Holders, ClaimHolders(b, signs)...)
		return
	}
	signs.addAccount(b.Number)
	h := KernelHolder(b.Path, *r, signs.String())
	h.Remedy += "; if it was unmounted while frozen, mount the device again, thaw it (fsfreeze -u) and unmount it"
	r.Holders = append(r.Holders, h)
}
