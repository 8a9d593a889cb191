package finalize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/fsinfo"
)

// Clean is the evidence of prove-clean.
type Clean struct {
	Devices []CleanDevice `json:"devices"`
	// Others are the file systems without a device: there is nothing on a disk that could be
	// unclean.
	Others []string `json:"others,omitempty"`
	// Unknown says of each file system of which no proof is known why.
	Unknown []string `json:"not_proven,omitempty"`
}

// CleanDevice shows that the next mount of a device replays nothing.
type CleanDevice struct {
	Path   string `json:"path"`
	FSType string `json:"fs_type"`
	Log    string `json:"log"`
}

// Line implements Evidence.
func (c Clean) Line() string {
	var lines []string
	for _, d := range c.Devices {
		lines = append(lines, d.Path+": "+d.Log)
	}
	for _, why := range c.Unknown {
		lines = append(lines, "not proven: "+why)
	}
	return strings.Join(append(lines, c.Others...), "; ")
}

// NotProven returns the file systems of which no proof is known.
func (c Clean) NotProven() []string { return c.Unknown }

// proveClean reads the superblocks from the devices, not from the cache.
func proveClean(_ context.Context, r *Release) (Evidence, error) {
	var clean Clean
	for _, d := range r.Target.Devices {
		if slices.Contains(neverWritten, d.FSType) {
			clean.Devices = append(clean.Devices, CleanDevice{d.Path, d.FSType, d.FSType + " has no log: the kernel never writes it"})
			continue
		}
		if err := ioctl(d.File, unix.BLKFLSBUF, 0); err != nil && !unsupported(err) {
			return clean, fmt.Errorf("dropping the cached blocks of %s (BLKFLSBUF): %w", d.Path, err)
		}
		log, err := fsinfo.CheckClean(fsinfo.Type(d.FSType), d.File)
		if errors.Is(err, fsinfo.ErrUnknownType) {
			clean.Unknown = append(clean.Unknown, fmt.Sprintf("whether the %s on %s is clean: its log is not known to this program", d.FSType, d.Path))
			continue
		}
		if err != nil {
			return clean, fmt.Errorf("checking %s: %w", d.Path, err)
		}
		clean.Devices = append(clean.Devices, CleanDevice{d.Path, d.FSType, log})
	}
	for _, f := range r.systems {
		if f.kind != stored {
			clean.Others = append(clean.Others, fmt.Sprintf("the %s of %s has no log on a device", f.FSType, f.Point))
		}
	}
	return clean, nil
}

// Detached is the evidence of detach.
type Detached struct {
	Names []string `json:"names"`
	// Stay are the loop devices that somebody else attached, each with its file.
	Stay []string `json:"stay,omitempty"`
}

// Line implements Evidence.
func (d Detached) Line() string {
	line := "flushed; there was nothing to detach"
	if len(d.Names) > 0 {
		line = "flushed and detached " + strings.Join(d.Names, ", ")
	}
	if len(d.Stay) > 0 {
		line += "; not ours, and still attached: " + strings.Join(d.Stay, ", ")
	}
	return line
}

// detach makes the devices' content durable and gives the devices back, each also after another that
// fails.
func detach(_ context.Context, r *Release) (Evidence, error) {
	var evidence Detached
	for _, d := range r.Target.Devices {
		if err := d.File.Sync(); err != nil {
			return evidence, fmt.Errorf("flushing %s: %w", d.Path, err)
		}
		if file := sys.attachment(d.number()); file != "" {
			evidence.Stay = append(evidence.Stay, fmt.Sprintf("%s to %s (losetup -d %s)", d.Path, file, d.Path))
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
