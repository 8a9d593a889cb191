package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Partition types of the Discoverable Partitions Specification and of the UEFI specification.
const (
	typeESP  = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeRoot = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709" // x86-64
	typeBIOS = "21686148-6449-6E6F-744E-656564454649"

	typeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4" // any file system of Linux
)

// partition is one of a disk image, as sfdisk reads its table; bytes.
type partition struct {
	Type, Name  string
	Start, Size int64
}

// Partitions reads the table of a raw disk image with sfdisk.
func Partitions(ctx context.Context, raw string) ([]partition, error) {
	out, err := command(ctx, "sfdisk", "--json", raw)
	if err != nil {
		return nil, err
	}
	var t struct {
		Table struct {
			SectorSize int64
			Partitions []partition
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal([]byte(out), &t); err != nil {
		return nil, fmt.Errorf("reading sfdisk's output: %w", err)
	}
	for i := range t.Table.Partitions {
		t.Table.Partitions[i].Start *= t.Table.SectorSize
		t.Table.Partitions[i].Size *= t.Table.SectorSize
	}
	return t.Table.Partitions, nil
}

func partitionOfType(ctx context.Context, raw, guid string) (partition, error) {
	all, err := Partitions(ctx, raw)
	if err != nil {
		return partition{}, err
	}
	for _, p := range all {
		if strings.EqualFold(p.Type, guid) {
			return p, nil
		}
	}
	return partition{}, fmt.Errorf("%s has no partition of type %s, only %v", raw, guid, all)
}

// MountRootReadOnly mounts the root partition of a raw disk image and returns where. Nothing is
// written, a log is not replayed: a file system that needs it shows its unrecovered state. The
// mount is taken down at the end of the test.
func MountRootReadOnly(t testing.TB, raw string) string {
	t.Helper()
	dir := t.TempDir()
	undo, err := mountRoot(t.Context(), raw, dir)
	if err != nil {
		t.Fatalf("mounting the root of %s: %v", raw, err)
	}
	t.Cleanup(func() {
		if err := undo(); err != nil {
			t.Errorf("unmounting the root of %s: %v", raw, err)
		}
	})
	return dir
}

func mountRoot(ctx context.Context, raw, dir string) (undo func() error, err error) {
	p, err := partitionOfType(ctx, raw, typeRoot)
	if err != nil {
		return nil, err
	}
	dev, err := attach(raw, os.O_RDONLY, p.Start, p.Size)
	if err != nil {
		return nil, err
	}
	fs, err := probe(ctx, dev.Name())
	if err == nil {
		err = unix.Mount(dev.Name(), dir, fs, unix.MS_RDONLY, noReplay(fs))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", dev.Name(), err), dev.Close())
	}
	return func() error { return errors.Join(unix.Unmount(dir, 0), dev.Close()) }, nil
}

// noReplay is the mount option with which a file system leaves its log alone.
func noReplay(fs string) string {
	switch fs {
	case "xfs":
		return "norecovery,nouuid"
	case "ext4":
		return "noload"
	case "btrfs":
		return "rescue=nologreplay"
	}
	return ""
}

// probe asks blkid for the file system on a device or at the start of a file.
func probe(ctx context.Context, dev string) (string, error) {
	out, err := command(ctx, "blkid", "--probe", "--output", "value", "--match-tag", "TYPE", dev)
	return strings.TrimSpace(out), err
}

// FsckAll fails the test unless sgdisk finds the partition table sound, fsck.fat the ESP, and the
// root file system's own checker the root. Nothing is repaired.
func FsckAll(t testing.TB, raw, fs string) {
	t.Helper()
	if err := fsckAll(t.Context(), raw, fs); err != nil {
		t.Error(err)
	}
}

// checkers look at a file system without mending it.
var checkers = map[string][]string{
	"xfs":   {"xfs_repair", "-n"},
	"ext4":  {"e2fsck", "-fn"},
	"btrfs": {"btrfs", "check", "--readonly"},
}

func fsckAll(ctx context.Context, raw, fs string) error {
	checker, ok := checkers[fs]
	if !ok {
		return fmt.Errorf("no checker for file system %q", fs)
	}
	return errors.Join(checkTable(ctx, raw),
		checkPartition(ctx, raw, typeESP, "vfat", []string{"fsck.fat", "-n"}),
		checkPartition(ctx, raw, typeRoot, fs, checker))
}

// checkTable reads the output of sgdisk: it mends errors in memory, exits with 0, and finds no
// problem then.
func checkTable(ctx context.Context, raw string) error {
	r, err := runProgram(ctx, "sgdisk", "--verify", raw)
	if err != nil {
		return err
	}
	said := r.Stdout + r.Stderr
	odd := strings.Contains(strings.Replace(said, sfdiskHabit, "", 1), "Warning")
	if r.Code != 0 || !strings.Contains(said, "No problems found") || odd || sgdiskDoubt.MatchString(said) {
		return fmt.Errorf("sgdisk --verify %s: exit status %d\n%s", raw, r.Code, said)
	}
	return nil
}

// sfdiskHabit is a remark about where sfdisk lets the first partition begin; no fault.
const sfdiskHabit = "Warning: There is a gap between the main partition table"

var sgdiskDoubt = regexp.MustCompile(`(?i)caution|invalid|corrupt|damaged|regenerat|error`)

func checkPartition(ctx context.Context, raw, guid, fs string, checker []string) error {
	p, err := partitionOfType(ctx, raw, guid)
	if err != nil {
		return err
	}
	dev, err := attach(raw, os.O_RDONLY, p.Start, p.Size)
	if err != nil {
		return err
	}
	defer dev.Close()
	if got, err := probe(ctx, dev.Name()); err != nil || got != fs {
		return fmt.Errorf("partition of type %s holds %q, want %s (%v)", guid, got, fs, err)
	}
	_, err = command(ctx, checker[0], append(checker[1:len(checker):len(checker)], dev.Name())...)
	return err
}

// ESPFile reads a file from the ESP of a raw disk image with mtools.
func ESPFile(t testing.TB, raw, path string) []byte {
	t.Helper()
	p, err := partitionOfType(t.Context(), raw, typeESP)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir() + "/file"
	mustCommand(t, "mcopy", "-n", "-i", fmt.Sprintf("%s@@%d", raw, p.Start), "::"+path, out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
