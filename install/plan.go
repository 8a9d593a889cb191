package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/rootfs/bootloader"
)

// Plan is what an installation is about to do. Nothing has been written when it is known.
type Plan struct {
	Device     string           `json:"device"`
	Block      bool             `json:"block"` // a block device, not a file
	Model      string           `json:"model"`
	Serial     string           `json:"serial,omitempty"`
	Size       int64            `json:"size"`            // bytes
	Found      []disk.Found     `json:"found,omitempty"` // on the disk: all of it will be lost
	Partitions []disk.Partition `json:"partitions"`
	// Mounted are the file systems that are installed to, of to-filesystem.
	Mounted     []MountedFilesystem `json:"mounted,omitempty"`
	Filesystem  disk.Filesystem     `json:"filesystem"`
	RootNeed    int64               `json:"root_need"` // bytes that the root takes at least; of a dry run exact, else it may be somewhat less
	Source      string              `json:"source"`
	Digest      string              `json:"digest,omitempty"` // of the source's manifest
	Target      string              `json:"target,omitempty"` // image that updates come from
	Stateroot   string              `json:"stateroot"`
	Bootloader  bootloader.Kind     `json:"bootloader"`
	Firmware    string              `json:"firmware"`
	BoundImages []BoundImage        `json:"bound_images,omitempty"` // that are brought along
	Kargs       []string            `json:"kargs"`                  // but for ostree=, which names what is deployed
	Config      []string            `json:"config_files,omitempty"` // that the install configuration comes from
}

// describePlan gathers the plan.
func (r *run) describePlan() *Plan {
	d, p := r.disk.claimed, r.imagePlan()
	p.Device, p.Block, p.Model, p.Serial, p.Size = d.Path(), d.IsBlock(), d.Model(), serialOf(d), d.Size()
	p.Found, p.Partitions, p.RootNeed = r.disk.found, r.disk.layout.Partitions, r.source.facts.need.root(r.opts.Filesystem)
	return p
}

// imagePlan is what a plan says of the image and of the system that it becomes.
func (r *run) imagePlan() *Plan {
	return &Plan{
		Filesystem: r.opts.Filesystem,
		Source:     r.opts.Source.String(), Digest: r.source.image.ManifestDigest, Target: r.opts.Target,
		Stateroot: r.opts.Stateroot, Bootloader: r.opts.Bootloader, Firmware: r.firmware().String(),
		BoundImages: r.source.bound.list(),
		Kargs:       r.target.kargs, Config: append(r.source.facts.config.Files, r.source.facts.kargs.Files...),
	}
}

// serialOf is the serial number of a device, by which a person can tell it
// from another of its kind; "" where sysfs has none.
func serialOf(d *disk.Disk) string {
	var st unix.Stat_t
	if !d.IsBlock() || unix.Stat(d.Path(), &st) != nil {
		return ""
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for _, name := range []string{"serial", "device/serial", "device/wwid", "wwid"} { // virtio, NVMe, SCSI
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(strings.TrimSpace(string(text))) > 0 {
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}
