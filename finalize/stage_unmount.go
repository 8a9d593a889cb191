package finalize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/fsinfo"
	"installer/finalize/holders"
	"installer/finalize/mounts"
)

// Unmounted is the evidence of unmount: the mounts in their order, each with the
// one umount2 that it took.
type Unmounted struct {
	Mounts []mounts.Mount `json:"mounts"`
	// Reached are the mounts in other namespaces that went along by propagation;
	// prove-released sees that they did.
	Reached []mounts.Mount `json:"reached,omitempty"`
	// Elsewhere is what was unmounted in other namespaces.
	Elsewhere []Elsewhere `json:"elsewhere,omitempty"`
}

// Line implements Evidence.
func (u Unmounted) Line() string {
	points := make([]string, len(u.Mounts))
	for i, m := range u.Mounts {
		points[i] = m.Point
	}
	line := "unmounted once each: " + strings.Join(points, ", ")
	if len(u.Reached) > 0 {
		line += fmt.Sprintf("; %d mounts in other namespaces went along", len(u.Reached))
	}
	for _, e := range u.Elsewhere {
		line += fmt.Sprintf("; %d mounts in %s", len(e.Mounts), e.Namespace)
	}
	return line
}

// unmount takes the tree down leaf first, and stops at the first mount that will
// not go.
func unmount(ctx context.Context, r *Release) (Evidence, error) {
	var done Unmounted
	r.changed = nil // what is unmounted in part is better left read-only
	for _, m := range r.Tree {
		if err := mounts.Unmount(m); err != nil {
			return done, r.explainBusy(ctx, m, err)
		}
		done.Mounts = append(done.Mounts, m)
	}
	done.Reached = r.reached
	if !r.Target.AllNamespaces {
		return done, nil
	}
	var err error
	done.Elsewhere, err = r.unmountElsewhere(ctx)
	return done, err
}

// Dead is the evidence of prove-released.
type Dead struct {
	Namespaces int             `json:"namespaces"` // how many mount namespaces have no mount of any device
	Devices    []DeadDevice    `json:"devices"`
	Search     *holders.Report `json:"search,omitempty"`
}

// DeadDevice is what shows that a device's super block is gone.
type DeadDevice struct {
	Path  string           `json:"path"`
	Signs holders.Liveness `json:"signs_of_life"`
}

// Line implements Evidence.
func (d Dead) Line() string {
	line := fmt.Sprintf("no mount in %d mount namespaces", d.Namespaces)
	for _, device := range d.Devices {
		line += fmt.Sprintf("; %s: %s", device.Path, device.Signs)
	}
	return line
}

// proveReleased proves that the super block on each device is dead.
func proveReleased(ctx context.Context, r *Release) (Evidence, error) {
	var dead Dead
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return dead, err
	}
	dead.Namespaces = len(snapshot.Namespaces)
	for _, d := range r.Target.Devices {
		signs, err := holders.SuperBlock(d.block())
		if err != nil {
			return dead, err
		}
		dead.Devices = append(dead.Devices, DeadDevice{d.Path, signs})
		if signs.Claimed || signs.Alive() || stillMounted(snapshot, d) {
			return r.explainAlive(ctx, dead, d, signs)
		}
	}
	return dead, nil
}

// stillMounted looks for the device. The number of an unmounted btrfs may already
// be another file system's, so it says nothing; that the device opens
// exclusively says it all.
func stillMounted(snapshot *mounts.Snapshot, d Device) bool {
	for _, m := range snapshot.All {
		if m.Dev == d.number() {
			return true
		}
	}
	return false
}

// explainAlive names who keeps the super block. Every mount of the device is a
// holder now.
func (r *Release) explainAlive(ctx context.Context, dead Dead, d Device, signs holders.Liveness) (Evidence, error) {
	target := r.held
	target.Mounts = nil
	report, err := holders.Scan(ctx, target)
	if err != nil {
		return dead, err
	}
	dead.Search = &report
	held := &HeldError{Holders: report.Holders, Why: d.Path + " is unmounted here, but not released: " + signs.String()}
	if len(report.Certain()) == 0 {
		held.Holders = append(held.Holders, unexplained(d, report, signs)...)
	}
	return dead, held
}

// unexplained tells another's claim on the device from a super block that the
// kernel keeps.
func unexplained(d Device, report holders.Report, signs holders.Liveness) []holders.Holder {
	if signs.Alive() {
		return []holders.Holder{holders.KernelHolder(d.Path, report, signs.String())}
	}
	return holders.ClaimHolders(d.block(), signs)
}

// Clean is the evidence of prove-clean.
type Clean struct {
	Devices []CleanDevice `json:"devices"`
}

// CleanDevice is what shows that the next mount of a device replays nothing.
type CleanDevice struct {
	Path   string `json:"path"`
	FSType string `json:"fs_type"`
	Log    string `json:"log"`
}

// Line implements Evidence.
func (c Clean) Line() string {
	lines := make([]string, len(c.Devices))
	for i, d := range c.Devices {
		lines[i] = d.Path + ": " + d.Log
	}
	return strings.Join(lines, "; ")
}

// proveClean reads the super blocks from the devices, past what is cached of them.
func proveClean(_ context.Context, r *Release) (Evidence, error) {
	var clean Clean
	for _, d := range r.Target.Devices {
		if err := ioctl(d.File, unix.BLKFLSBUF, 0); err != nil && !unsupported(err) {
			return clean, fmt.Errorf("dropping what is cached of %s (BLKFLSBUF): %w", d.Path, err)
		}
		log, err := fsinfo.CheckClean(fsinfo.Type(d.FSType), d.File)
		if err != nil {
			return clean, fmt.Errorf("checking %s: %w", d.Path, err)
		}
		clean.Devices = append(clean.Devices, CleanDevice{d.Path, d.FSType, log})
	}
	return clean, nil
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
	for _, d := range r.Target.Devices {
		if err := d.File.Sync(); err != nil {
			return evidence, fmt.Errorf("flushing %s: %w", d.Path, err)
		}
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
