package holders

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// Examine answers for a path what Scan answers for a target, and for a block
// device also whether its super block lives, or someone else has claimed it,
// with no holder that can be named.
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
	subject.Target.Probe = subject.Mount
	s, err := newScan(ctx, subject.Target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	s.tryFreeze(*subject.Mount)
	report, err := s.search(ctx)
	s.trial.end()
	if err != nil {
		return Report{}, err
	}
	if err := settle(&report); err != nil {
		return report, err
	}
	return report, s.addFrozen(&report, *subject.Mount)
}

func examineDevice(ctx context.Context, subject Subject) (Report, error) {
	report, err := Scan(ctx, subject.Target)
	if err != nil {
		return report, err
	}
	report.Searched = append(report.Searched, BlockClaim, Kernel)
	dead := true
	for _, b := range subject.Blocks {
		gone, err := report.addClaim(b)
		if err != nil {
			return report, err
		}
		dead = dead && gone
	}
	report.judge()
	if dead && len(report.Certain()) == 0 {
		// The kernel's own answer settles what could not be read of some processes.
		report.Verdict = Free
	}
	return report, nil
}

// addFrozen asks whether a mounted file system is frozen, when nobody else holds
// it: there is nobody to be kept waiting then.
func (s *scan) addFrozen(r *Report, m mounts.Mount) error {
	if len(r.Certain()) > 0 || !mayFreeze(m) {
		return nil
	}
	frozen, err := s.trial.ask()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) { // a file may be mounted on a file
		r.Unreadable = append(r.Unreadable, fmt.Sprintf("whether %s is frozen: %v", m.Point, err))
		return nil
	}
	if err != nil {
		return err
	}
	r.Searched = append(r.Searched, Frozen)
	if frozen {
		r.Holders = append(r.Holders, FrozenHolder(m))
	}
	r.judge()
	return nil
}

// addClaim explains a claim on the device that none of the holders found so far
// explains. A claim on a partition shows on its disk too, and is told once. gone
// says that neither a claim nor a super block is there.
func (r *Report) addClaim(b Block) (gone bool, err error) {
	signs, err := liveness(b)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		r.Unreadable = append(r.Unreadable, fmt.Sprintf("claim on %s: %v", b.Path, err))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	gone = !signs.Claimed && !signs.Alive()
	if gone || len(r.Certain()) > 0 {
		return gone, nil
	}
	if !signs.Alive() {
		r.Holders = append(r.Holders, ClaimHolders(b, signs)...)
		return false, nil
	}
	r.Holders = append(r.Holders, Holder{Class: Kernel, Path: b.Path, Evidence: signs.String(),
		Remedy: "the super block lives with no mount and no certain holder in user space: it may have been unmounted while frozen; " +
			"mount the device again, thaw it (fsfreeze -u) and unmount it"})
	return false, nil
}

// liveness asks for every kind of file system when it is not known which is on
// the device: nothing is mounted then that could tell.
func liveness(b Block) (Liveness, error) {
	dev, err := os.Open(b.Path)
	if err != nil {
		return Liveness{}, fmt.Errorf("reading the device: %w", err)
	}
	defer dev.Close()
	b.Reader = dev
	if b.FSType != "" {
		return SuperBlock(b)
	}
	var all Liveness
	for _, kind := range []string{"xfs", "ext4", "btrfs"} {
		b.FSType = kind
		signs, err := SuperBlock(b)
		if err != nil {
			return all, err
		}
		all.Claimed = signs.Claimed
		all.Entries = append(all.Entries, signs.Entries...)
		all.Threads = signs.Threads
	}
	return all, nil
}
