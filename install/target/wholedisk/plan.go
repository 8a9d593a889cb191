package wholedisk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install/choice"
	"installer/install/hostprog"
	"installer/install/target"
	"installer/rootfs/bootloader"
)

const mib = 1 << 20

// Plan lays the disk out, and tries the steps that would fail after the first write otherwise.
func (d *Disk) Plan(ctx context.Context, c *choice.Choice, need target.Need) (*target.Plan, error) {
	layout, err := layOut(d.claimed.Size(), d.claimed.SectorSize(), d.o.RootSize, c, need)
	if err != nil {
		return nil, err
	}
	if err := c.Filesystem.Require(hostprog.Find); err != nil {
		return nil, err
	}
	d.choice, d.layout, d.room = c, layout, need.Space
	var notes []string
	if c.Labelled {
		d.unlabelled = nil
	} else if len(d.unlabelled) > 0 {
		notes = append(notes, fmt.Sprintf("SELinux labels files on this machine: the new root is mounted with %s, so that it stores no label", d.unlabelled[0]))
	}
	if err := d.rehearse(ctx); err != nil {
		return nil, err
	}
	return &target.Plan{
		Device: d.claimed.Path(), Block: d.claimed.IsBlock(), Model: d.claimed.Model(), Serial: serialOf(d.claimed),
		Found: d.found, Partitions: layout.Partitions, RootNeed: need.Root(c.Filesystem),
		// A disk loses its content, or the user meant another one. An empty file is neither.
		Ask: d.claimed.IsBlock() || len(d.found) > 0, Lost: "will be overwritten", Notes: notes,
	}, nil
}

// espSize returns the bytes that the EFI system partition needs: some loaders have the kernel's
// files on it.
func espSize(kind bootloader.Kind, kernel int64) int64 {
	const others = 32 * mib // the loader twice, entries, and FAT32 itself beside a hundredth
	if kind.KernelOnESP() {
		return max(disk.DefaultESPSize, (kernel+kernel/100+others+mib-1)/mib*mib)
	}
	return disk.DefaultESPSize
}

// serialOf returns the serial number of a device, which distinguishes it from others of its kind;
// "" where sysfs has none.
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
