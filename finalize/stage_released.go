package finalize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// sys is the machine's sysfs.
var sys = sysfs{"/sys"}

// Dead is the evidence of prove-released.
type Dead struct {
	Namespaces int          `json:"namespaces"` // how many mount namespaces have no mount of the target
	Devices    []DeadDevice `json:"devices"`
	// Numbers are the superblocks without a device.
	Numbers []DeadNumber    `json:"numbers,omitempty"`
	Search  *holders.Report `json:"search,omitempty"`
	// Open says of each layer that is not proven to be released why.
	Open []string `json:"not_proven,omitempty"`
}

// DeadDevice shows that no superblock is on a device.
type DeadDevice struct {
	Path  string           `json:"path"`
	Signs holders.Liveness `json:"signs_of_life"`
}

// DeadNumber shows that a superblock without a device is gone.
type DeadNumber struct {
	FSType string        `json:"fs_type"`
	Number mounts.DevNum `json:"number"` // which the kernel has given to another superblock since
}

// Line implements Evidence.
func (d Dead) Line() string {
	var parts []string
	if d.Search == nil {
		parts = append(parts, "no mount of it in "+count(d.Namespaces, "mount namespace"))
	}
	for _, device := range d.Devices {
		parts = append(parts, fmt.Sprintf("%s: %s", device.Path, device.Signs))
	}
	for _, n := range d.Numbers {
		parts = append(parts, fmt.Sprintf("%s: the kernel has given its device number %s to another file system", n.FSType, n.Number))
	}
	for _, why := range d.Open {
		parts = append(parts, "not proven: "+why)
	}
	return strings.Join(parts, "; ")
}

// NotProven returns the layers that are not proven to be released.
func (d Dead) NotProven() []string { return d.Open }

// proveReleased proves of every superblock of the target that it is gone, and of every device that
// it does not keep another one claimed.
func proveReleased(ctx context.Context, r *Release) (Evidence, error) {
	var dead Dead
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return dead, err
	}
	dead.Namespaces = len(snapshot.Namespaces)
	for _, d := range r.Target.Devices {
		if err := r.proveDevice(ctx, &dead, snapshot, d); err != nil {
			return dead, err
		}
	}
	for _, f := range r.systems {
		if f.kind == stored {
			continue
		}
		if err := r.proveNumber(ctx, &dead, snapshot, f); err != nil {
			return dead, err
		}
	}
	return dead, nil
}

func (r *Release) proveDevice(ctx context.Context, dead *Dead, snapshot *mounts.Snapshot, d Device) error {
	signs, err := holders.SuperBlock(d.block())
	if err != nil {
		return err
	}
	dead.Devices = append(dead.Devices, DeadDevice{d.Path, signs})
	if signs.Claimed || signs.Alive() || mounted(snapshot, d.number(), d.FSType) {
		return r.explainAlive(ctx, dead, d, signs)
	}
	why, err := sys.beneath(d.number())
	if why != "" {
		dead.Open = append(dead.Open, why)
	}
	return err
}

// mounted looks for a superblock in every namespace. The number of an unmounted btrfs may already
// be another file system's, so it says nothing; that the device opens exclusively says it all.
func mounted(snapshot *mounts.Snapshot, number mounts.DevNum, fsType string) bool {
	for _, m := range snapshot.All {
		if m.Dev == number && m.FSType == fsType {
			return true
		}
	}
	return false
}

// searchAgain looks for holders after the unmount: every mount of the device is one now.
func (r *Release) searchAgain(ctx context.Context, dead *Dead) (holders.Report, error) {
	target := r.held
	target.Mounts = nil
	report, err := holders.Scan(ctx, target)
	if err == nil {
		dead.Search = &report
	}
	return report, err
}

// explainAlive names who keeps the superblock.
func (r *Release) explainAlive(ctx context.Context, dead *Dead, d Device, signs holders.Liveness) error {
	report, err := r.searchAgain(ctx, dead)
	if err != nil {
		return err
	}
	held := &HeldError{Holders: report.Holders, Why: d.Path + " is unmounted here, but not released: " + signs.String()}
	if len(report.Certain()) > 0 {
		return held
	}
	held.Holders = append(held.Holders, unexplained(d, report, signs)...)
	return held
}

// unexplained distinguishes a superblock that the kernel keeps from another's claim on the device.
func unexplained(d Device, report holders.Report, signs holders.Liveness) []holders.Holder {
	if signs.Alive() {
		return []holders.Holder{holders.KernelHolder(d.Path, report, signs.String())}
	}
	return holders.ClaimHolders(d.block(), signs)
}

// proveNumber proves that a superblock without a device is gone, where nothing lies beneath it.
func (r *Release) proveNumber(ctx context.Context, dead *Dead, snapshot *mounts.Snapshot, f filesystem) error {
	if mounted(snapshot, f.Dev, f.FSType) {
		return r.explainMounted(ctx, dead, f)
	}
	switch err := numberGivenUp(f.Dev); {
	case errors.Is(err, errNumberTaken):
		dead.Open = append(dead.Open, fmt.Sprintf("whether the %s of %s is gone: it is mounted nowhere, but %v", f.FSType, f.Point, err))
		return nil
	case err != nil:
		dead.Open = append(dead.Open, fmt.Sprintf("whether the %s of %s is gone: %v", f.FSType, f.Point, err))
		return nil
	}
	dead.Numbers = append(dead.Numbers, DeadNumber{f.FSType, f.Dev})
	if f.kind == elsewhere {
		dead.Open = append(dead.Open, fmt.Sprintf("whether all is released beneath the %s of %s (%s): its content is on no block device of this machine's that can be looked at",
			f.FSType, f.Point, f.Source))
	}
	return nil
}

// explainMounted names the mounts of a superblock that should be gone.
func (r *Release) explainMounted(ctx context.Context, dead *Dead, f filesystem) error {
	report, err := r.searchAgain(ctx, dead)
	if err != nil {
		return err
	}
	if len(report.Certain()) > 0 {
		return &HeldError{Holders: report.Holders, Why: f.Point + " is unmounted here, but not released: its superblock is mounted elsewhere"}
	}
	dead.Open = append(dead.Open, fmt.Sprintf("whether the %s of %s is gone: a mount with its device number %s was seen, and then no more", f.FSType, f.Point, f.Dev))
	return nil
}
