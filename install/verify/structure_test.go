package verify

import (
	"os"
	"slices"
	"testing"

	"installer/disk"
	"installer/tests/kit"
)

// inverted returns what stands at an offset, with one bit changed.
func inverted(t *testing.T, path string, at int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return []byte{b[0] ^ 1}
}

// TestGPTAgreesWithSgdisk reads a table that sgdisk wrote.
func TestGPTAgreesWithSgdisk(t *testing.T) {
	const size = 64 << 20
	path := kit.Sparse(t, size)
	kit.Run(t, "sgdisk", "-n", "1:2048:+1M", "-t", "1:ef02", "-c", "1:bios", "-n", "5:0:+8M", "-t", "5:ef00", "-c", "5:größe",
		"-u", "5:01234567-89ab-cdef-0123-456789abcdef", path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []disk.Partition{
		{Number: 1, Name: "bios", Type: disk.TypeBIOSBoot, Start: 1 << 20, Size: 1 << 20},
		{Number: 5, Name: "größe", Type: disk.TypeESP, UUID: "01234567-89ab-cdef-0123-456789abcdef", Start: 2 << 20, Size: 8 << 20},
	}
	for _, lba := range []int64{1, size/512 - 1} {
		c, err := readTable(f, 512, lba)
		if err != nil {
			t.Fatal(err)
		}
		got := c.Partitions
		want[0].UUID = got[0].UUID
		if !slices.Equal(got, want) {
			t.Errorf("LBA %d: %+v", lba, got)
		}
		for at := lba * 512; at < lba*512+512; at++ {
			kit.Patch(t, path, at, inverted(t, path, at), func() {
				if _, err := readTable(f, 512, lba); err == nil {
					t.Errorf("LBA %d: a bit flipped at %d is not found", lba, at-lba*512)
				}
			})
		}
	}
}
