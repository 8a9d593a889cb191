package disk

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"installer/tests/kit"
)

// Whatever the system's own programs make must be recognised, and wipefs must agree that it is
// there.
func TestContentsOfOtherPrograms(t *testing.T) {
	for _, tc := range []struct {
		want string
		argv []string
	}{
		{"xfs file system", []string{"mkfs.xfs", "-q"}},
		{"ext2/3/4 file system", []string{"mkfs.ext4", "-q"}},
		{"btrfs file system", []string{"mkfs.btrfs", "-q"}},
		{"FAT file system", []string{"mkfs.fat", "-F", "32"}},
		{"FAT file system", []string{"mkfs.fat", "-F", "16"}},
		{"swap space", []string{"mkswap"}},
		{"GPT partition table", []string{"sgdisk", "-o"}},
		{"MBR partition table", []string{"sh", "-c", `echo label:dos | sfdisk -q "$0"`}},
		{"Sun partition table", []string{"sh", "-c", `echo label:sun | sfdisk -q "$0"`}},
		{"SGI partition table", []string{"sh", "-c", `echo label:sgi | sfdisk -q "$0"`}},
		{"minix file system", []string{"mkfs.minix", "-1"}},
		{"minix file system", []string{"mkfs.minix", "-3"}},
		{"BFS file system", []string{"mkfs.bfs"}},
		{"ext2/3/4 file system", []string{"mke2fs", "-q", "-O", "journal_dev"}},
		{"xfs file system", []string{"mkfs.xfs", "-q", "-b", "size=512", "-m", "crc=0"}},
		{"qcow2 disk image", []string{"sh", "-c", `qemu-img create -q -f qcow2 "$0" 400M`}},
		{"VMDK disk image", []string{"sh", "-c", `qemu-img create -q -f vmdk "$0" 400M`}},
		{"VDI disk image", []string{"sh", "-c", `qemu-img create -q -f vdi "$0" 400M`}},
		{"VHDX disk image", []string{"sh", "-c", `qemu-img create -q -f vhdx "$0" 400M`}},
		{"VHD disk image", []string{"sh", "-c", `qemu-img create -q -f vpc "$0" 400M`}},
		{"tar archive", []string{"sh", "-c", `tar -cf "$0" -C "$0".tree file`}},
		{"erofs file system", []string{"sh", "-c", `mkfs.erofs --quiet "$0" "$0".tree`}},
		{"cramfs file system", []string{"sh", "-c", `mkfs.cramfs "$0".tree "$0"`}},
	} {
		path := rawFile(t, 400*mib)
		if tc.argv[0] == "sh" { // "$0.tree" is a directory with a file
			if err := errors.Join(os.MkdirAll(path+".tree", 0o755), os.WriteFile(path+".tree/file", []byte("content"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		kit.Run(t, tc.argv[0], append(tc.argv[1:], path)...)
		kit.Run(t, "truncate", "-s", "%512", path)
		isImage := strings.HasSuffix(tc.want, "image") || strings.HasSuffix(tc.want, "archive")
		if wipefs := kit.Run(t, "wipefs", "--noheadings", path); wipefs == "" && !isImage {
			t.Errorf("%v: wipefs finds nothing", tc.argv)
		}
		d := opened(t, path)
		found, err := d.Contents()
		if err != nil || len(found) != 1 || found[0].What != tc.want || found[0].Where != "the disk" {
			t.Errorf("%v: %v (%v)", tc.argv, found, err)
		}
		var notEmpty *NotEmptyError
		if err := d.RequireEmpty(); !errors.As(err, &notEmpty) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "--wipe") {
			t.Errorf("%v: %v", tc.argv, err)
		}
	}
}

// oracleTypes are the types that libblkid has for signatures here. Those that it recognises by the
// magic number alone must be recognised by it at the very place.
var oracleTypes = map[string]string{
	"BIOS RAID member (DDF)": "ddf_raid_member", "BIOS RAID member (HighPoint)": "hpt45x_raid_member hpt37x_raid_member",
	"BIOS RAID member (Intel)": "isw_raid_member", "BIOS RAID member (JMicron)": "jmicron_raid_member",
	"BIOS RAID member (LSI)": "lsi_mega_raid_member", "BIOS RAID member (NVIDIA)": "nvidia_raid_member",
	"BIOS RAID member (Promise)": "promise_fasttrack_raid_member", "BIOS RAID member (Silicon Image)": "silicon_medley_raid_member",
	"BIOS RAID member (VIA)": "via_raid_member", "BFS file system": "bfs", "Ceph bluestore": "ceph_bluestore", "DRBD device": "drbd",
	"ISO 9660 file system": "iso9660", "LUKS encrypted volume": "crypto_LUKS",
	"LUKS encrypted volume (second header)": "crypto_LUKS", "Linux RAID member": "linux_raid_member", "NSS volume": "nss",
	"OCFS2 file system": "ocfs2", "Oracle ASM disk": "oracleasm", "ReFS file system": "ReFS", "SysV file system": "sysv",
	"UBI volume": "ubi", "UBIFS file system": "ubifs", "UFS file system": "ufs", "VDO volume": "vdo", "VMFS volume": "VMFS",
	"VMFS volume member": "VMFS_volume_member", "VxFS file system": "vxfs", "btrfs file system": "btrfs", "cramfs file system": "cramfs",
	"dm-snapshot store": "DM_snapshot_cow", "erofs file system": "erofs", "exFAT file system": "exfat", "ext2/3/4 file system": "ext2",
	"f2fs file system": "f2fs", "reiser4 file system": "reiser4", "romfs file system": "romfs", "squashfs file system": "squashfs squashfs3",
	"suspended system": "swsuspend", "swap space": "swap", "zonefs file system": "zonefs", "AIX partition table": "aix",
}

// checkedMore are the formats of which libblkid recognises the magic number alone in version 2.38, but in
// 2.41 only a superblock that is sound.
var checkedMore = []string{
	"BIOS RAID member (NVIDIA)", "DRBD device", "ISO 9660 file system", "btrfs file system", "erofs file system",
	"exFAT file system", "romfs file system",
}

// Every entry of the table must be found, those of formats whose programs are not at hand too, and
// by wipefs where it needs no more than the magic number.
func TestContentsByMagic(t *testing.T) {
	const size = 16 * mib
	agreed := map[string]bool{}
	for _, s := range append(signaturesAtEnd(size), signatures...) {
		if s.at > size {
			continue // a copy on large disks
		}
		path := rawFile(t, size)
		d := opened(t, path)
		at := s.at
		if at < 0 {
			at += size
		}
		if _, err := d.WriteAt([]byte(s.magic), at); err != nil {
			t.Fatal(err)
		}
		found, err := d.Contents()
		if err != nil || !slices.ContainsFunc(found, func(f Found) bool { return f.What == s.name }) {
			t.Errorf("%s at %d: found %v (%v)", s.name, s.at, found, err)
		}
		if want := oracleTypes[s.name]; want != "" {
			for _, got := range strings.Fields(kit.Run(t, "wipefs", "-n", "-i", "-O", "TYPE", path)) {
				agreed[s.name] = true
				if !strings.Contains(want, got) {
					t.Errorf("%s at %d: wipefs says %s", s.name, s.at, got)
				}
			}
		}
	}
	for name := range oracleTypes {
		if !agreed[name] && !slices.Contains(checkedMore, name) {
			t.Errorf("%s: wipefs recognises it at none of its places", name)
		}
	}
}

// TestContentsOfEndsAndMiddles has what no table names: noise, archives, and a device in use that
// bears no header.
func TestContentsWithoutSignature(t *testing.T) {
	const size = 16 * mib
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(i*7 + i>>8 + 1)
	}
	for name, c := range map[string]struct {
		at            int64
		data          []byte
		file, device  bool // counts as empty
		fileSays, dev string
	}{
		"nothing":             {0, nil, true, true, "", ""},
		"zeros":               {5 * mib, make([]byte, mib), true, true, "", ""},
		"noise at the start":  {0, noise, false, false, "at byte 0", "first MiB"},
		"one byte":            {mib - 1, []byte{1}, false, false, "at byte 1048575", "first MiB (at byte 1048575)"},
		"noise at the end":    {size - 4096, noise, false, false, "at byte", "last MiB"},
		"noise in the middle": {7 * mib, noise, false, true, "at byte 7340032", ""},
		"gzip file":           {0, []byte("\x1f\x8b\x08\x00"), false, false, "gzip file", "gzip file"},
	} {
		path := rawFile(t, size)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(c.data, c.at); err != nil {
			t.Fatal(err)
		}
		f.Close()
		check := func(kind, path string, empty bool, says string) {
			d, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			err = d.RequireEmpty()
			var notEmpty *NotEmptyError
			if empty != (err == nil) || err != nil && (!errors.As(err, &notEmpty) || !strings.Contains(err.Error(), says)) {
				t.Errorf("%s on a %s: %v", name, kind, err)
			}
		}
		check("file", path, c.file, c.fileSays)
		check("device", losetup(t, path), c.device, c.dev)
	}
}

func TestContentsOfPartitions(t *testing.T) {
	path := rawFile(t, 1<<30)
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader("label:gpt\nstart=1MiB,size=100MiB,name=first\nstart=200MiB,size=400MiB\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	kit.Run(t, "mkfs.ext4", "-q", "-E", "offset=1048576", path, "50m")
	d := opened(t, path)
	found, err := d.Contents()
	if err != nil {
		t.Fatal(err)
	}
	text := (&NotEmptyError{path, found}).Error()
	for _, want := range []string{"the disk: GPT partition table", "partition 1 (first): ext2/3/4 file system", "partition 2: no known content"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	// The backup alone is enough; a table that is damaged in both copies is still somebody's.
	for _, off := range []int64{512 + 20, 1<<30 - 512 + 20} {
		if _, err := d.WriteAt([]byte{7}, off); err != nil {
			t.Fatal(err)
		}
		if err := d.RequireEmpty(); err == nil || !strings.Contains(err.Error(), "GPT partition table") {
			t.Errorf("after damage at %d: %v", off, err)
		}
	}
}

func TestContentsOfMBRPartitions(t *testing.T) {
	path := rawFile(t, 64*mib)
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader("label:dos\nstart=2048,size=40960,type=83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	d := opened(t, path)
	if _, err := d.WriteAt([]byte("LUKS\xba\xbe"), mib); err != nil {
		t.Fatal(err)
	}
	if err := d.RequireEmpty(); err == nil || !strings.Contains(err.Error(), "MBR partition table; partition 1: LUKS") {
		t.Errorf("%v", err)
	}
}

func TestEmptyDisks(t *testing.T) {
	for _, size := range []int64{512, 4096, 64 << 10, 1 * mib, 64 * mib} {
		d := opened(t, rawFile(t, size))
		if err := d.RequireEmpty(); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
