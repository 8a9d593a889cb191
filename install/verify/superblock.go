package verify

import (
	"errors"

	"installer/disk/fsinfo"
)

// readSuperblock identifies the root file system. A root that has none is left to checkSuperblock to
// report.
func (l *layout) readSuperblock(disk device) {
	if l.rootfs != nil {
		l.super, l.superErr = fsinfo.ReadRoot(disk.part(*l.rootfs))
	}
}

// checkSuperblock checks that the root's superblock is whole and that its log is empty.
func checkSuperblock(f *findings, disk device, l *layout) {
	if l.superErr != nil {
		f.fault(l.rootfs.String(), "its superblock: %v", l.superErr)
		return
	}
	checkFilesystem(f, disk, filesystem{*l.rootfs, l.super})
}

// checkBootSuperblock checks the file system of a separate /boot as that of the root is checked.
func checkBootSuperblock(f *findings, disk device, l *layout) {
	if l.boot == nil {
		f.notApplicable("/boot is on the root file system")
		return
	}
	checkFilesystem(f, disk, filesystem{*l.boot, l.bootSuper})
}

// checkFilesystem checks that a superblock is whole and that the log is empty.
func checkFilesystem(f *findings, disk device, fs filesystem) {
	r, where := disk.part(fs.part), fs.part.String()
	for _, problem := range fsinfo.Damage(fs.super.Type, r, fs.part.Size) {
		f.fault(where, "%s", problem)
	}
	clean, err := fsinfo.CheckClean(fs.super.Type, r)
	switch {
	case errors.Is(err, fsinfo.ErrDirty):
		f.faultWith("mount it once for writing, which replays the log, and unmount it", where, "%v", err)
	case err != nil:
		f.fault(where, "%v", err)
	default:
		f.say("%s, UUID %s: %s", fs.super.Type, fs.super.UUID, clean)
	}
}
