package fsinfo

import (
	"errors"
	"os"
	"strings"
	"testing"

	"installer/tests/kit"
)

// blkid names an attribute of a file system.
func blkid(t *testing.T, path, name string) string {
	t.Helper()
	return strings.TrimSpace(kit.Run(t, "blkid", "-p", "-o", "value", "-s", name, path))
}

func TestReadAgreesWithBlkid(t *testing.T) {
	for _, argv := range [][]string{
		{"mkfs.xfs", "-q", "-L", "label-12byte"}, {"mkfs.ext4", "-q", "-L", "a label of 16"}, {"mkfs.btrfs", "-q", "-L", "a longer label than others"},
		{"mkfs.vfat", "-F", "32", "-n", "LABEL"}, {"mkfs.vfat", "-F", "16"}, {"mkfs.xfs", "-q", "-b", "size=1024"}, {"mkfs.ext4", "-q", "-b", "1024", "-O", "^64bit"},
	} {
		path := made(t, argv...)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := Read(f)
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		if got := blkid(t, path, "TYPE"); string(s.Type) != got {
			t.Errorf("%v: type %q, blkid says %q", argv, s.Type, got)
		}
		if got := blkid(t, path, "UUID"); s.UUID != got {
			t.Errorf("%v: UUID %q, blkid says %q", argv, s.UUID, got)
		}
		if got := blkid(t, path, "LABEL"); strings.TrimPrefix(s.Label, "NO NAME") != got {
			t.Errorf("%v: label %q, blkid says %q", argv, s.Label, got)
		}
		if s.BlockSize == 0 || s.Size > testSize || s.Size < testSize-testSize/100 {
			t.Errorf("%v: blocks of %d bytes, %d bytes in all", argv, s.BlockSize, s.Size)
		}
		root, err := ReadRoot(f)
		if isRoot := s.Type != VFAT; isRoot != (err == nil) || isRoot != (root == s) || !isRoot && !errors.Is(err, ErrNoRoot) {
			t.Errorf("%v as a root: %+v, %v", argv, root, err)
		}
	}
}

func TestEntryTypes(t *testing.T) {
	for _, c := range []struct {
		want bool
		argv []string
	}{
		{true, []string{"mkfs.xfs", "-q"}},
		{true, []string{"mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=1"}},
		{false, []string{"mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=0"}},
		{true, []string{"mkfs.ext4", "-q"}},
		{false, []string{"mkfs.ext4", "-q", "-O", "^filetype"}},
		{true, []string{"mkfs.btrfs", "-q"}},
		{false, []string{"mkfs.vfat", "-F", "32"}},
	} {
		f, err := os.Open(made(t, c.argv...))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if s, err := Read(f); err != nil || s.EntryTypes() != c.want {
			t.Errorf("%v: entry types %t, %v", c.argv, s.EntryTypes(), err)
		}
	}
}

func TestReadOfNothing(t *testing.T) {
	for _, content := range []string{"", "x", strings.Repeat("\x00", 4096), strings.Repeat("\xff", 128<<10)} {
		if s, err := Read(strings.NewReader(content)); err == nil {
			t.Errorf("%d bytes: %+v", len(content), s)
		}
	}
}

// TestDamage flips a bit in the superblock that each file system's own maker made.
func TestDamage(t *testing.T) {
	for fs, c := range map[Type]struct {
		argv []string
		at   []int64 // the superblock and a copy of it
	}{
		XFS:   {[]string{"mkfs.xfs", "-q", "-d", "agcount=4"}, []int64{108, testSize/4 + 108}},
		Ext4:  {[]string{"mkfs.ext4", "-q"}, []int64{Ext4Offset + 0x78}},
		Btrfs: {[]string{"mkfs.btrfs", "-q"}, []int64{BtrfsOffset + 0x30, 64<<20 + 0x30}},
	} {
		t.Run(string(fs), func(t *testing.T) {
			f, err := os.OpenFile(made(t, c.argv...), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := Damage(fs, f, testSize); len(got) > 0 {
				t.Fatalf("a new file system: %v", got)
			}
			if got := Damage(fs, f, testSize-64<<20); len(got) == 0 || !strings.Contains(got[0], "claims") {
				t.Errorf("on a partition that is too small: %v", got)
			}
			for _, at := range c.at {
				invert(t, f, at)
				if got := Damage(fs, f, testSize); len(got) != 1 || !strings.Contains(got[0], "checksum") {
					t.Errorf("a bit flipped at %d: %v", at, got)
				}
				invert(t, f, at)
			}
		})
	}
}

func invert(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, at)
	b[0] ^= 1
	if _, writeErr := f.WriteAt(b, at); errors.Join(err, writeErr) != nil {
		t.Fatal(err, writeErr)
	}
}
