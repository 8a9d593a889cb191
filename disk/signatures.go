package disk

import (
	"bytes"
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

// signatures that stand at fixed places.
var signatures = []signature{
	{"xfs file system", 0, "XFSB"},
	{"ext2/3/4 file system", fsinfo.Ext4Offset + 0x38, "\x53\xef"},
	{"btrfs file system", fsinfo.BtrfsOffset + 0x40, "_BHRfS_M"},
	{"FAT file system", 82, "FAT32   "},
	{"FAT file system", 54, "FAT16   "},
	{"FAT file system", 54, "FAT12   "},
	{"NTFS file system", 3, "NTFS    "},
	{"BitLocker volume", 3, "-FVE-FS-"},
	{"exFAT file system", 3, "EXFAT   "},
	{"f2fs file system", 1024, "\x10\x20\xf5\xf2"},
	{"erofs file system", 1024, "\xe2\xe1\xf5\xe0"},
	{"squashfs file system", 0, "hsqs"},
	{"JFS file system", 0x8000, "JFS1"},
	{"reiserfs file system", 0x10034, "ReIsEr"},
	{"nilfs2 file system", 1024 + 6, "\x34\x34"},
	{"HFS+ file system", 1024, "H+"},
	{"APFS container", 32, "NXSB"},
	{"ISO 9660 file system", 0x8001, "CD001"},
	{"UDF file system", 0x8001, "BEA01"},
	{"LUKS encrypted volume", 0, "LUKS\xba\xbe"},
	{"LUKS encrypted volume (second header)", 0x4000, "SKUL\xba\xbe"},
	{"LVM physical volume", 0x018, "LVM2 001"},
	{"LVM physical volume", 0x218, "LVM2 001"},
	{"LVM physical volume", 0x418, "LVM2 001"},
	{"LVM physical volume", 0x618, "LVM2 001"},
	{"Linux RAID member", 0, mdMagic},
	{"Linux RAID member", 4096, mdMagic},
	{"bcache or bcachefs device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"bcachefs device", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"Ceph bluestore", 0, "bluestore block device"},
	{"VMFS volume", 0x200000, "\x5e\xf1\xab\x2f"},
	{"swap space", 4096 - 10, "SWAPSPACE2"},
	{"swap space", 8192 - 10, "SWAPSPACE2"},
	{"swap space", 16384 - 10, "SWAPSPACE2"},
	{"swap space", 65536 - 10, "SWAPSPACE2"},
	{"suspended system", 4096 - 10, "S1SUSPEND"},
}

// mdMagic begins every Linux RAID superblock, little-endian (linux/raid/md_p.h).
const mdMagic = "\xfc\x4e\x2b\xa9"

// signaturesAtEnd gives the signatures whose place follows from the size: RAID superblocks of version 1.0
// (in the last 8 to 12 KiB) and 0.90 (in the last 64 to 128 KiB).
func signaturesAtEnd(size int64) []signature {
	return []signature{
		{"Linux RAID member", (size/512 - 16) &^ 7 * 512, mdMagic},
		{"Linux RAID member", size&^65535 - 65536, mdMagic},
	}
}

// signaturesOn names what a device bears, each name once.
func signaturesOn(r io.ReaderAt, size int64) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, s := range append(signaturesAtEnd(size), signatures...) {
		if seen[s.name] {
			continue
		}
		there, err := holds(r, size, s.at, s.magic)
		if err != nil {
			return nil, err
		}
		if there {
			seen[s.name] = true
			names = append(names, s.name)
		}
	}
	zfs, err := hasZFS(r, size)
	if err != nil {
		return nil, err
	}
	if zfs {
		names = append(names, "ZFS pool member")
	}
	return names, nil
}

// holds tells whether bytes stand at a place; not, where the device is shorter.
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

// hasZFS looks for an uberblock in the first label's ring, 128 KiB from 128 KiB on in steps of 1 KiB
// (ZFS on-disk format, section 1.3.1), in either byte order.
func hasZFS(r io.ReaderAt, size int64) (bool, error) {
	const at, ring, step = 128 << 10, 128 << 10, 1 << 10
	if size < at+ring {
		return false, nil
	}
	b := make([]byte, ring)
	if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	for i := 0; i < ring; i += step {
		magic := b[i : i+8]
		if bytes.Equal(magic, []byte("\x0c\xb1\xba\x00\x00\x00\x00\x00")) || bytes.Equal(magic, []byte("\x00\x00\x00\x00\x00\xba\xb1\x0c")) {
			return true, nil
		}
	}
	return false, nil
}
