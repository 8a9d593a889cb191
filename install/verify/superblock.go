package verify

import (
	"context"
	"errors"
	"io"

	"installer/disk/fsinfo"
)

// readSuperblock identifies the root file system; a root that has none is left to checkSuperblock
// to report.
func (i *inspection) readSuperblock() error {
	r := io.NewSectionReader(i.disk, i.rootfs.Start, i.rootfs.Size)
	sb, err := fsinfo.ReadRoot(r)
	if err != nil {
		return err
	}
	i.super = sb
	i.report.Disk.Filesystem, i.report.Disk.RootUUID = string(sb.Type), sb.UUID
	return nil
}

// checkSuperblock checks that the root's superblock is whole and that its log is empty.
func (i *inspection) checkSuperblock(context.Context) error {
	if err := i.readSuperblock(); err != nil {
		i.fault(i.rootfs.String(), "its superblock: %v", err)
		return nil
	}
	i.checkFilesystem(*i.rootfs, i.super)
	return nil
}

// checkBootSuperblock checks the file system of a separate /boot as that of the root is checked.
func (i *inspection) checkBootSuperblock(context.Context) error {
	if i.boot == nil {
		i.notApplicable("/boot is on the root file system")
		return nil
	}
	i.checkFilesystem(*i.boot, i.bootSuper)
	return nil
}

// checkFilesystem checks that a superblock is whole and that the log is empty.
func (i *inspection) checkFilesystem(p Partition, super fsinfo.Superblock) {
	r := io.NewSectionReader(i.disk, p.Start, p.Size)
	for _, problem := range fsinfo.Damage(super.Type, r, p.Size) {
		i.fault(p.String(), "%s", problem)
	}
	clean, err := fsinfo.CheckClean(super.Type, r)
	switch {
	case errors.Is(err, fsinfo.ErrDirty):
		i.faultWith("mount it once for writing, which replays the log, and unmount it", p.String(), "%v", err)
	case err != nil:
		i.fault(p.String(), "%v", err)
	default:
		i.say("%s, UUID %s: %s", super.Type, super.UUID, clean)
	}
}
