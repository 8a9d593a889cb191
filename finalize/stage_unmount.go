package finalize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// Unmounted is the evidence of unmount: the mounts in their order, each with the
// one umount2 that it took.
type Unmounted struct {
	Mounts []mounts.Mount `json:"mounts"`
}

// Line implements Evidence.
func (u Unmounted) Line() string {
	points := make([]string, len(u.Mounts))
	for i, m := range u.Mounts {
		points[i] = m.Point
	}
	return "unmounted once each: " + strings.Join(points, ", ")
}

// unmount takes the tree down leaf first, and stops at the first mount that will
// not go.
func unmount(ctx context.Context, r *Release) (Evidence, error) {
	var done Unmounted
	for _, m := range r.Tree {
		if err := mounts.Unmount(m); err != nil {
			return done, r.explainBusy(ctx, m, err)
		}
		done.Mounts = append(done.Mounts, m)
	}
	return done, nil
}

// Dead is the evidence of prove-released.
type Dead struct {
	Device     string           `json:"device"`
	Namespaces int              `json:"namespaces"` // how many mount namespaces have no mount of it
	Signs      holders.Liveness `json:"signs_of_life"`
	Search     *holders.Report  `json:"search,omitempty"`
}

// Line implements Evidence.
func (d Dead) Line() string {
	return fmt.Sprintf("no mount of it in %d mount namespaces; %s", d.Namespaces, d.Signs)
}

// proveReleased proves that the super block is dead.
func proveReleased(ctx context.Context, r *Release) (Evidence, error) {
	signs, err := holders.SuperBlock(r.Target.Device.block())
	if err != nil {
		return nil, err
	}
	dead := Dead{Device: r.Target.Device.Path, Signs: signs}
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return dead, err
	}
	dead.Namespaces = len(snapshot.Namespaces)
	if !signs.Claimed && !signs.Alive() && !r.stillMounted(snapshot) {
		return dead, nil
	}
	return r.explainAlive(ctx, dead)
}

// stillMounted looks for the device. The number of an unmounted btrfs may already
// be another file system's, so it says nothing; that the device opens
// exclusively says it all.
func (r *Release) stillMounted(snapshot *mounts.Snapshot) bool {
	for _, m := range snapshot.All {
		if m.Dev == r.Target.Device.number() {
			return true
		}
	}
	return false
}

// explainAlive names who keeps the super block. Every mount of the device is a
// holder now.
func (r *Release) explainAlive(ctx context.Context, dead Dead) (Evidence, error) {
	target := r.held
	target.Mounts = nil
	report, err := holders.Scan(ctx, target)
	if err != nil {
		return dead, err
	}
	dead.Search = &report
	held := &HeldError{Holders: report.Holders, Why: "it is unmounted here, but not released: " + dead.Signs.String()}
	if len(held.Holders) == 0 {
		held.Holders = []holders.Holder{r.unexplained(report, dead.Signs)}
	}
	return dead, held
}

// unexplained tells another's claim on the device from a super block that the
// kernel keeps.
func (r *Release) unexplained(report holders.Report, signs holders.Liveness) holders.Holder {
	if signs.Alive() {
		return kernelHolder(r.Target.Device.Path, report, signs.String())
	}
	return holders.Holder{Class: holders.BlockClaim, Path: r.Target.Device.Path, Evidence: signs.String(),
		Remedy: "end what has opened the device exclusively (see lsof on the device, /sys/class/block/*/holders)"}
}

// Clean is the evidence of prove-clean.
type Clean struct {
	FSType string `json:"fs_type"`
	Log    string `json:"log"`
}

// Line implements Evidence.
func (c Clean) Line() string { return c.Log }

// proveClean reads the super block from the device, past what is cached of it.
func proveClean(_ context.Context, r *Release) (Evidence, error) {
	d := r.Target.Device
	if err := ioctl(d.File, unix.BLKFLSBUF, 0); err != nil && !unsupported(err) {
		return nil, fmt.Errorf("dropping what is cached of %s (BLKFLSBUF): %w", d.Path, err)
	}
	log, err := CheckClean(d.FSType, d.File)
	return Clean{d.FSType, log}, err
}

// Detached is the evidence of detach.
type Detached struct {
	Names []string `json:"names"`
}

// Line implements Evidence.
func (d Detached) Line() string {
	if len(d.Names) == 0 {
		return "flushed; there was nothing to detach"
	}
	return "flushed and detached " + strings.Join(d.Names, ", ")
}

// detach makes what was written durable and gives the devices back, each also
// after another that fails.
func detach(_ context.Context, r *Release) (Evidence, error) {
	var evidence Detached
	if err := flush(r.Target.Device.File); err != nil {
		return evidence, err
	}
	var failures []error
	for _, d := range r.Target.Detach {
		if err := d.Detach(); err != nil {
			failures = append(failures, fmt.Errorf("detaching %s: %w", d.Name(), err))
			continue
		}
		evidence.Names = append(evidence.Names, d.Name())
	}
	return evidence, errors.Join(failures...)
}

func flush(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing the device: %w", err)
	}
	return nil
}
