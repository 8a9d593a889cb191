package disk

import (
	"errors"
	"io"

	"installer/disk/fsinfo"
)

// signature is a magic number at a place. The numbers are those of each format's own documentation;
// most are collected in magic(5) and in util-linux's libblkid.
type signature struct {
	name  string
	at    int64 // bytes; negative counts from the end
	magic string
}

// signatures stand at fixed places. The list names the content that is found; a disk counts as
// empty by [Disk.RequireEmpty] only if its ends are zero too, so that a format without an entry is
// safe.
var signatures = fixedSignatures()

func fixedSignatures() []signature {
	list := append([]signature(nil), plainSignatures...)
	each := func(name string, places []int64, offset int64, magics ...string) {
		for _, at := range places {
			for _, magic := range magics {
				list = append(list, signature{name, at + offset, magic})
			}
		}
	}
	start := []int64{0}
	pages := []int64{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10}
	each("swap space", pages, -10, "SWAPSPACE2", "SWAP-SPACE")
	each("suspended system", pages, -10, "S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001", "\xed\xc3\x02\xe9\x98\x56\xe5\x0c")
	each("LVM physical volume", []int64{0, 512, 1024, 1536}, 24, "LVM2 001")
	each("LUKS encrypted volume (second header)", []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}, 0, "SKUL\xba\xbe")
	each("btrfs file system", []int64{fsinfo.BtrfsOffset, 64 << 20, 256 << 30}, 0x40, "_BHRfS_M")
	each("ext2/3/4 file system", []int64{fsinfo.Ext4Offset, 128 << 20}, 0x38, "\x53\xef")
	each("UFS file system", []int64{0, 8 << 10, 64 << 10, 256 << 10}, 0x55c,
		"\x54\x19\x01\x00", "\x00\x01\x19\x54", "\x19\x01\x54\x19", "\x19\x54\x01\x19", "\x38\x9d\x26\x7c", "\x7c\x26\x9d\x38")
	each("minix file system", []int64{1024}, 0x10, "\x7f\x13", "\x8f\x13", "\x68\x24", "\x78\x24", "\x13\x7f", "\x13\x8f", "\x24\x68", "\x24\x78")
	each("minix file system", []int64{1024}, 0x18, "\x5a\x4d", "\x4d\x5a")
	each("OCFS2 file system", []int64{1 << 10, 2 << 10, 4 << 10, 8 << 10}, 0, "OCFSV2")
	each("UDF file system", []int64{0x8001}, 0, "BEA01", "BOOT2", "CDW02", "NSR02", "NSR03", "TEA01")
	each("BeFS file system", []int64{0, 512}, 0x20, "BFS1", "1SFB")
	each("SysV file system", []int64{0, 9 << 10, 15 << 10}, 0x3f8, "\x20\x7e\x18\xfd", "\xfd\x18\x7e\x20")
	each("squashfs file system", start, 0, "hsqs", "sqsh")
	each("cramfs file system", start, 0, "\x45\x3d\xcd\x28", "\x28\xcd\x3d\x45")
	each("HFS+ file system", []int64{1024, -1024}, 0, "H+", "HX")
	each("Stratis pool member", []int64{512, 9 * 512}, 4, "!Stra0tis\x86\xff\x02^\x41rh")
	each("BIOS RAID member (HighPoint)", []int64{9 * 512}, 32, "\xf0\x16\x78\x5a", "\xfd\x16\x78\x5a")
	each("BIOS RAID member (HighPoint)", []int64{-11 * 512}, 0, "\xf3\x16\x78\x5a", "\xfd\x16\x78\x5a")
	each("BIOS RAID member (DDF)", []int64{-512, -257 * 512}, 0, "\xde\x11\xde\x11")
	for _, sectors := range []int64{63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087} {
		each("BIOS RAID member (Promise)", []int64{-sectors * 512}, 0, "Promise Technology, Inc.")
	}
	return list
}

// plainSignatures are the formats that have one magic number at one or two places.
var plainSignatures = []signature{
	{"xfs file system", 0, "XFSB"},
	{"xfs file system (external log)", 0, "\xfe\xed\xba\xbe"},
	{"xfs file system (EXFS)", 0, "EXFS"},
	{"FAT file system", 82, "FAT32   "},
	{"FAT file system", 54, "FAT16   "},
	{"FAT file system", 54, "FAT12   "},
	{"NTFS file system", 3, "NTFS    "},
	{"ReFS file system", 0, "\x00\x00\x00ReFS\x00"},
	{"BitLocker volume", 3, "-FVE-FS-"},
	{"FileVault volume", 88, "CS"},
	{"exFAT file system", 3, "EXFAT   "},
	{"f2fs file system", 1024, "\x10\x20\xf5\xf2"},
	{"erofs file system", 1024, "\xe2\xe1\xf5\xe0"},
	{"JFS file system", 0x8000, "JFS1"},
	{"reiserfs file system", 0x10034, "ReIsEr"},
	{"reiserfs file system", 0x2034, "ReIsEr"},
	{"reiser4 file system", 0x10000, "ReIsEr4"},
	{"nilfs2 file system", 1024 + 6, "\x34\x34"},
	{"HFS file system", 1024, "BD"},
	{"HPFS file system", 0x2000, "\x49\xe8\x95\xf9"},
	{"APFS container", 32, "NXSB"},
	{"GFS2 file system", 0x10000, "\x01\x16\x19\x70"},
	{"OCFS file system", 8, "OracleCFS"},
	{"Oracle ASM disk", 32, "ORCLDISK"},
	{"VxFS file system", 1024, "\xf5\xfc\x01\xa5"},
	{"VxFS file system", 0x2000, "\xa5\x01\xfc\xf5"},
	{"BFS file system", 0, "\xce\xfa\xad\x1b"},
	{"Xenix file system", 0x400 + 0x3f8, "\x44\x55\x2b\x00"},
	{"NSS volume", 4096, "SPB5"},
	{"romfs file system", 0, "-rom1fs-"},
	{"zonefs file system", 0, "SFOZ"},
	{"UBI volume", 0, "UBI#"},
	{"UBIFS file system", 0, "\x31\x18\x10\x06"},
	{"ISO 9660 file system", 0x8001, "CD001"},
	{"ISO 9660 file system", 0x8009, "CDROM"},
	{"LUKS encrypted volume", 0, "LUKS\xba\xbe"},
	{"dm-verity hash device", 0, "verity\x00\x00"},
	{"dm-integrity device", 0, "integrt\x00"},
	{"dm-snapshot store", 0, "SnAp"},
	{"VDO volume", 0, "dmvdo001"},
	{"LVM1 physical volume", 0, "HM"},
	{"Linux RAID member", 0, mdMagic},
	{"Linux RAID member", 4096, mdMagic},
	{"BIOS RAID member (Intel)", -1024, "Intel Raid ISM Cfg Sig. "},
	{"BIOS RAID member (LSI)", -512, "$XIDE$"},
	{"BIOS RAID member (Silicon Image)", -512 + 0x60, "\x00\x00\x00\x2f"},
	{"BIOS RAID member (NVIDIA)", -1024, "NVIDIA"},
	{"BIOS RAID member (Adaptec)", -512, "\x37\xfc\x4d\x1e"},
	{"BIOS RAID member (JMicron)", -512, "JM"},
	{"BIOS RAID member (VIA)", -512, "\x55\xaa"},
	{"bcache or bcachefs device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"bcachefs device", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"Ceph bluestore", 0, "bluestore block device"},
	{"DRBD control volume", 0, "$DRBDmgr=q"},
	{"DRBD proxy log", 16, "DRBDdlh*"},
	{"mpool device", 8, "mpoolDev"},
	{"VMFS volume member", 0x100000, "\x0d\xd0\x01\xc0"},
	{"VMFS volume", 0x200000, "\x5e\xf1\xab\x2f"},
	{"Windows dynamic disk", 0xc00, "PRIVHEAD"},
	{"Apple partition table", 512, "PM\x00\x00"},
	{"Sun partition table", 508, "\xda\xbe"},
	{"BSD partition table", 512, "\x57\x45\x56\x82"},
	{"SGI partition table", 0, "\x0b\xe5\xa9\x41"},
	{"AIX partition table", 0, "\xc9\xc2\xd4\xc1"},
	{"qcow2 disk image", 0, "QFI\xfb"},
	{"VMDK disk image", 0, "KDMV"},
	{"VMDK disk image", 0, "# Disk DescriptorFile"},
	{"VDI disk image", 0x40, "\x7f\x10\xda\xbe"},
	{"VHDX disk image", 0, "vhdxfile"},
	{"VHD disk image", 0, "conectix"},
	{"VHD disk image", -512, "conectix"},
	{"tar archive", 257, "ustar"},
	{"gzip file", 0, "\x1f\x8b\x08"},
	{"xz file", 0, "\xfd7zXZ\x00"},
	{"zstd file", 0, "\x28\xb5\x2f\xfd"},
}

// mdMagic begins every Linux RAID superblock, little-endian (linux/raid/md_p.h).
const mdMagic = "\xfc\x4e\x2b\xa9"

// signaturesAtEnd returns the signatures whose place follows from the size rounded down: Linux RAID
// of version 1.0 (in the last 8 to 12 KiB) and 0.90 (in the last 64 to 128 KiB), and those in the
// last 4 KiB block.
func signaturesAtEnd(size int64) []signature {
	block := roundDown(size, 4096) - 4096
	return []signature{
		{"Linux RAID member", (size/512 - 16) &^ 7 * 512, mdMagic},
		{"Linux RAID member", size&^65535 - 65536, mdMagic},
		{"nilfs2 file system (second superblock)", block + 6, "\x34\x34"},
		{"DRBD device", block + 60, "\x83\x74\x02\x6b"},
		{"DRBD device", block + 60, "\x83\x74\x02\x6c"},
		{"DRBD device", block + 60, "\x83\x74\x02\x6d"},
	}
}

// signaturesOn names the signatures on a device, each name once.
func signaturesOn(r io.ReaderAt, size int64) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, s := range append(signaturesAtEnd(size), signatures...) {
		if seen[s.name] {
			continue
		}
		at := s.at
		if at < 0 {
			at += roundDown(size, 512)
		}
		there, err := holds(r, size, at, s.magic)
		if err != nil {
			return nil, err
		}
		if there {
			seen[s.name] = true
			names = append(names, s.name)
		}
	}
	labels, err := zfsLabels(r, size)
	if err != nil {
		return nil, err
	}
	if len(labels) > 0 {
		name := "ZFS pool member"
		if pool := zfsPool(labels[0]); pool != "" {
			name += " (pool " + pool + ")"
		}
		names = append(names, name)
	}
	return names, nil
}

// holds reports whether bytes stand at a place; they do not where the device is shorter.
func holds(r io.ReaderAt, size, at int64, magic string) (bool, error) {
	if at < 0 || at+int64(len(magic)) > size {
		return false, nil
	}
	b := make([]byte, len(magic))
	if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(b) == magic, nil
}
