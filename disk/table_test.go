package disk

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"installer/tests/kit"
)

// sfdiskTable is the part of sfdisk's JSON that is compared.
type sfdiskTable struct {
	PartitionTable struct {
		Label, ID, Unit string
		SectorSize      int64
		Partitions      []struct {
			Node             string
			Start, Size      int64
			Type, UUID, Name string
		}
	}
}

// compareWithSfdisk compares the table with the one that sfdisk reads.
func compareWithSfdisk(t *testing.T, device string, l Layout) {
	t.Helper()
	var got sfdiskTable
	if err := json.Unmarshal([]byte(kit.Run(t, "sfdisk", "--json", device)), &got); err != nil {
		t.Fatal(err)
	}
	table := got.PartitionTable
	if table.Label != "gpt" || !strings.EqualFold(table.ID, l.UUID) || len(table.Partitions) != len(l.Partitions) {
		t.Fatalf("sfdisk reads %+v, want %+v", table, l)
	}
	for i, p := range l.Partitions {
		s, sector := table.Partitions[i], int64(l.SectorSize)
		if s.Start*sector != p.Start || s.Size*sector != p.Size || s.Name != p.Name ||
			!strings.EqualFold(s.Type, p.Type) || !strings.EqualFold(s.UUID, p.UUID) {
			t.Errorf("sfdisk reads %+v, want %+v", s, p)
		}
	}
}

// verifiedBySgdisk asks sgdisk whether the table has any fault.
func verifiedBySgdisk(t *testing.T, device string) {
	t.Helper()
	out := kit.Run(t, "sgdisk", "-v", device)
	if !strings.Contains(out, "No problems found") || strings.Contains(out, "Caution") || strings.Contains(out, "Warning") {
		t.Errorf("sgdisk -v: %s", out)
	}
}

func TestWriteTable(t *testing.T) {
	for _, size := range []int64{2 << 30, 2<<30 + 512*7, 5 << 40} { // the last exceeds an MBR's 32 bits
		path := rawFile(t, size)
		d := opened(t, path)
		l := written(t, d, PlanOptions{BIOSBoot: true})
		compareWithSfdisk(t, path, l)
		verifiedBySgdisk(t, path)
	}
}

func TestWriteTableWith4KSectors(t *testing.T) {
	path := rawFile(t, 2<<30)
	d := opened(t, path, sectorSize(4096))
	l := written(t, d, PlanOptions{BIOSBoot: true})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	loop := losetup(t, path, "--sector-size", "4096")
	compareWithSfdisk(t, loop, l)
	verifiedBySgdisk(t, loop)
}

// A damaged byte in either copy, or a table that is not the planned one, must be found.
func TestVerifyFindsDamage(t *testing.T) {
	path := rawFile(t, 2<<30)
	d := opened(t, path)
	l := written(t, d, PlanOptions{})
	last := d.Size() - 512
	for _, off := range []int64{450, 512 + 40, 1024 + 60, last + 48, last - 128*128 + 3} {
		was := make([]byte, 1)
		if _, err := d.ReadAt(was, off); err != nil {
			t.Fatal(err)
		}
		writeByte(t, d, off, was[0]^0x10)
		if err := d.Verify(l); err == nil {
			t.Errorf("a changed byte at %d was not found", off)
		}
		writeByte(t, d, off, was[0])
	}
	if err := d.Verify(l); err != nil {
		t.Error(err)
	}
	other := planned(t, d, PlanOptions{})
	if err := d.Verify(other); err == nil {
		t.Error("a table with other identifiers was taken for the planned one")
	}
}

func writeByte(t *testing.T, d *Disk, off int64, b byte) {
	t.Helper()
	if _, err := d.WriteAt([]byte{b}, off); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestWriteTableRefusesForeignLayouts(t *testing.T) {
	d := opened(t, rawFile(t, 2<<30))
	good := planned(t, d, PlanOptions{})
	for name, spoil := range map[string]func(*Layout){
		"other disk":   func(l *Layout) { l.DiskSize *= 2 },
		"other sector": func(l *Layout) { l.SectorSize = 4096 },
		"overlap":      func(l *Layout) { l.Partitions[1].Start -= mib },
		"misaligned":   func(l *Layout) { l.Partitions[1].Start += 512 },
		"too far":      func(l *Layout) { l.Partitions[1].Size += 2 * mib },
		"empty":        func(l *Layout) { l.Partitions = nil },
	} {
		l := good
		l.Partitions = append([]Partition(nil), good.Partitions...)
		spoil(&l)
		if err := d.WriteTable(l); err == nil {
			t.Errorf("%s: the table was written", name)
		}
	}
	if found, err := d.Contents(); err != nil || len(found) != 0 {
		t.Errorf("a refused table left %v on the disk (%v)", found, err)
	}
}

// After a new table nothing of the old life may be found, by the system's own prober either.
func TestWriteTableWipes(t *testing.T) {
	path := rawFile(t, 2<<30)
	kit.Run(t, "mkfs.btrfs", "-q", "-f", path)
	d := opened(t, path)
	l := written(t, d, PlanOptions{})
	signatures := kit.Run(t, "wipefs", "--noheadings", "-O", "TYPE", path)
	if got := strings.Join(strings.Fields(signatures), " "); got != "gpt gpt PMBR" {
		t.Errorf("wipefs finds %q", got)
	}
	for _, p := range l.Partitions {
		if names, err := probe(d.file, p.Name, p.Start, p.Size); err != nil || len(names) != 0 {
			t.Errorf("%s has %v (%v)", p.Name, names, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 2<<30 {
		t.Errorf("the file's size changed: %v %v", info, err)
	}
}

// On a device, whose content is not given back as that of a file is, the copies of superblocks that
// stand far inside are cleared too.
func TestWriteTableWipesDevices(t *testing.T) {
	for _, mkfs := range [][]string{{"mkfs.btrfs", "-q", "-f"}, {"mkfs.ext4", "-q", "-F"}} {
		loop := losetup(t, kit.Sparse(t, 2<<30))
		kit.Run(t, mkfs[0], append(mkfs[1:], loop)...)
		d := opened(t, loop)
		written(t, d, PlanOptions{})
		found, err := d.Contents()
		if err != nil || len(found) != 3 || found[0].What != "GPT partition table" || found[1].What != "no known content" || found[2].What != "no known content" {
			t.Errorf("%s: the new disk has %v (%v)", mkfs[0], found, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
