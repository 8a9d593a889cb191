package disk

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Whatever the system's own programs make must be recognised, and wipefs must agree that it is there.
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
	} {
		path := rawFile(t, 400*mib)
		output(t, tc.argv[0], append(tc.argv[1:], path)...)
		if wipefs := output(t, "wipefs", "--noheadings", path); wipefs == "" {
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

// Every entry of the table must be reachable, also those of formats whose programs are not at hand.
func TestContentsByMagic(t *testing.T) {
	for _, s := range signatures {
		if got := foundAfter(t, s.at, s.magic); !strings.Contains(got, s.name) {
			t.Errorf("%s at %d: found %q", s.name, s.at, got)
		}
	}
	const size = 16 * mib
	for _, s := range signaturesAtEnd(size) {
		if got := foundAfter(t, s.at, s.magic); !strings.Contains(got, s.name) {
			t.Errorf("%s at %d: found %q", s.name, s.at, got)
		}
	}
	if got := foundAfter(t, 128<<10+5<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"); got != "ZFS pool member" {
		t.Errorf("ZFS: found %q", got)
	}
}

func foundAfter(t *testing.T, at int64, magic string) string {
	t.Helper()
	d := opened(t, rawFile(t, 16*mib))
	if _, err := d.WriteAt([]byte(magic), at); err != nil {
		t.Fatal(err)
	}
	found, err := d.Contents()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.What)
	}
	return strings.Join(names, ",")
}

func TestContentsOfPartitions(t *testing.T) {
	path := rawFile(t, 1<<30)
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader("label:gpt\nstart=1MiB,size=100MiB,name=first\nstart=200MiB,size=400MiB\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	output(t, "mkfs.ext4", "-q", "-E", "offset=1048576", path, "50m")
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
	// The backup alone still tells; a table that is damaged in both copies is still somebody's.
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
	noise := rawFile(t, 4*mib)
	if err := os.WriteFile(noise, []byte(strings.Repeat("\xa5\x5a\x3c\x99", mib)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, noise).RequireEmpty(); err != nil {
		t.Errorf("noise: %v", err)
	}
}
