package disk

import (
	"bytes"
	"os"
	"testing"
)

// zfsDevice is a device of 16 MiB with a label at an offset.
func zfsDevice(at int) []byte {
	b := make([]byte, 16*mib)
	label := b[at:]
	// The list: header, version and flags; then pairs of sizes, name, type, count, value.
	copy(label[zfsPairsAt:], "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"+
		"\x00\x00\x00\x24\x00\x00\x00\x20\x00\x00\x00\x07version\x00\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x13\x88"+
		"\x00\x00\x00\x24\x00\x00\x00\x20\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x05tank1\x00\x00\x00")
	copy(label[zfsRingAt+5*zfsStep:], zfsUberblocks[0])
	return b
}

func TestZFSLabels(t *testing.T) {
	const size = 16 * mib
	for _, at := range []int{0, zfsLabel, size - 2*zfsLabel, size - zfsLabel} {
		labels, err := zfsLabels(bytes.NewReader(zfsDevice(at)), size)
		if err != nil || len(labels) != 1 || zfsPool(labels[0]) != "tank1" {
			t.Errorf("label at %d: %d labels, %v", at, len(labels), err)
		}
	}
	if labels, err := zfsLabels(bytes.NewReader(make([]byte, size)), size); len(labels) > 0 || err != nil {
		t.Errorf("%d labels of nothing, %v", len(labels), err)
	}
}

// The kernel names no user of a device whose pool is imported: the label does.
func TestRefusesImportedPool(t *testing.T) {
	path := rawFile(t, 16*mib)
	if err := os.WriteFile(path, zfsDevice(0), 0o600); err != nil {
		t.Fatal(err)
	}
	loop := losetup(t, path)
	f, err := os.OpenFile(loop, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused(t, loop, path, "claimed exclusively", "ZFS pool tank1", "zpool export tank1")
}
