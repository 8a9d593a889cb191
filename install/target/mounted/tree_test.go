package mounted

import (
	"strings"
	"testing"

	"installer/disk"
	"installer/disk/mounts"

	"errors"
)

// at is a mount of a whole file system that can be written to.
func at(id int, point, kind string) mounts.Mount {
	return mounts.Mount{ID: id, Point: point, Root: "/", FSType: kind, Options: "rw,relatime", SuperOptions: "rw"}
}

func changed(m mounts.Mount, change func(*mounts.Mount)) mounts.Mount {
	change(&m)
	return m
}

func TestClassify(t *testing.T) {
	root := at(1, "/mnt", "xfs")
	for name, c := range map[string]struct {
		root  mounts.Mount
		below []mounts.Mount
		boot  string
		esp   string
		other int
		says  string // of the refusal
	}{
		"root alone":          {root: root},
		"everything":          {root: root, below: []mounts.Mount{at(3, "/mnt/boot/efi", "vfat"), at(2, "/mnt/boot", "ext4")}, boot: "/mnt/boot", esp: "/mnt/boot/efi"},
		"ESP on /efi":         {root: at(1, "/mnt", "btrfs"), below: []mounts.Mount{at(2, "/mnt/efi", "vfat")}, esp: "/mnt/efi"},
		"an automount point":  {root: root, below: []mounts.Mount{at(3, "/mnt/boot", "ext4"), at(2, "/mnt/boot", "autofs")}, boot: "/mnt/boot"},
		"others":              {root: root, below: []mounts.Mount{at(2, "/mnt/proc", "proc"), at(3, "/mnt/var/boot", "ext4")}, other: 2},
		"root of FAT":         {root: at(1, "/mnt", "vfat"), says: "must be xfs, ext4 or btrfs, and this is vfat"},
		"root of tmpfs":       {root: at(1, "/mnt", "tmpfs"), says: "and this is tmpfs"},
		"boot of FAT":         {root: root, below: []mounts.Mount{at(2, "/mnt/boot", "vfat")}, says: "no symbolic links.*mount the EFI system partition on /mnt/boot/efi"},
		"boot of NFS":         {root: root, below: []mounts.Mount{at(2, "/mnt/boot", "nfs4")}, says: "the boot file system must be xfs, ext4 or btrfs"},
		"ESP not of FAT":      {root: root, below: []mounts.Mount{at(2, "/mnt/efi", "ext4")}, says: "an EFI system partition is FAT, and this is ext4"},
		"two ESPs":            {root: root, below: []mounts.Mount{at(2, "/mnt/efi", "vfat"), at(3, "/mnt/boot/efi", "vfat")}, says: "/mnt/efi and on /mnt/boot/efi: unmount one"},
		"a directory":         {root: changed(root, func(m *mounts.Mount) { m.Root = "/sub" }), says: "shows the directory /sub of the xfs"},
		"read-only":           {root: changed(root, func(m *mounts.Mount) { m.SuperOptions = "ro" }), says: "mount -o remount,rw /mnt"},
		"read-only mount":     {root: changed(root, func(m *mounts.Mount) { m.Options = "ro,relatime" }), says: "mounted read-only"},
		"read-only boot":      {root: root, below: []mounts.Mount{changed(at(2, "/mnt/boot", "ext4"), func(m *mounts.Mount) { m.SuperOptions = "ro" })}, says: "mount -o remount,rw /mnt/boot"},
		"option of that name": {root: changed(root, func(m *mounts.Mount) { m.SuperOptions = "rw,errors=remount-ro" })},
	} {
		tree, err := classify(c.root, append(c.below, c.root))
		if c.says != "" {
			var refused *disk.RefusedError
			if !errors.As(err, &refused) || !matches(err.Error(), c.says) {
				t.Errorf("%s: %v, want a refusal that says %s", name, err, c.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		point := func(f *Filesystem) string {
			if f == nil {
				return ""
			}
			return f.Mount.Point
		}
		if point(tree.Boot) != c.boot || point(tree.ESP) != c.esp || len(tree.Others) != c.other {
			t.Errorf("%s: boot %q, ESP %q, %d others", name, point(tree.Boot), point(tree.ESP), len(tree.Others))
		}
		if entries := tree.Entries().Mount.Point; c.boot != "" && entries != c.boot || c.boot == "" && entries != "/mnt" {
			t.Errorf("%s: the boot entries are on %s", name, entries)
		}
	}
}

// matches looks for the parts of a pattern, in order.
func matches(text, pattern string) bool {
	for _, part := range strings.Split(pattern, ".*") {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}
