package verify

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"

	"installer/disk"
)

// partitionAlignment is where installations let partitions begin and end, in bytes.
const partitionAlignment = 1 << 20

// tableCheck reads the partition table into the layout.
type tableCheck struct {
	*findings
	*layout
	disk device
}

// check reads and judges both copies of the table. The other checks go on with the better copy.
func (c *tableCheck) check() {
	sector := c.disk.sector
	last := c.disk.size/int64(sector) - 1
	if last < 2 {
		c.fault(c.path, "%d bytes are too few for a partition table", c.disk.size)
		return
	}
	c.checkProtectiveMBR()
	primary, primaryErr := readTable(c.disk, sector, 1)
	if primaryErr != nil {
		c.faultWith("restore it from the backup at the end of the disk, such as by sgdisk --load-backup or gdisk",
			"primary partition table", "%v", primaryErr)
	}
	backup, backupErr := readTable(c.disk, sector, last)
	if backupErr != nil {
		c.faultWith("if the disk was made larger: sgdisk --move-second-header", "backup partition table", "%v", backupErr)
	}
	switch {
	case primaryErr == nil && backupErr == nil:
		c.compareTables(primary, backup, last)
		c.usePartitions(primary)
	case primaryErr == nil:
		c.usePartitions(primary)
	case backupErr == nil:
		c.usePartitions(backup)
	}
}

// readTable reads one copy, and demands all that the specification does.
func readTable(r io.ReaderAt, sector int, lba int64) (disk.GPT, error) {
	c, err := disk.ReadGPT(r, sector, lba)
	if err == nil {
		err = c.Conforms()
	}
	return c, err
}

// checkProtectiveMBR checks LBA 0 (UEFI 2.10 section 5.2.3), the boot code apart.
func (c *tableCheck) checkProtectiveMBR() {
	const where = "boot sector"
	b := make([]byte, 512)
	if _, err := c.disk.ReadAt(b, 0); err != nil {
		c.fault(where, "it cannot be read: %v", err)
		return
	}
	c.bootCode = !allZero(b[:440])
	if b[510] != 0x55 || b[511] != 0xaa {
		c.fault(where, "it does not end in 55 aa but in %02x %02x", b[510], b[511])
	}
	e := b[446:462]
	sectors := uint64(c.disk.size / int64(c.disk.sector))
	start, size := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
	switch {
	case e[4] != 0xee:
		c.fault(where, "its first partition is not the protective one: type %#02x", e[4])
	case start != 1 || uint64(size) != min(sectors-1, 0xffffffff):
		c.fault(where, "its protective partition has %d sectors from %d on, not %d from 1 on", size, start, min(sectors-1, 0xffffffff))
	case e[0]&0x7f != 0 || !bytes.Equal(e[1:4], []byte{0, 2, 0}):
		c.fault(where, "its protective partition does not begin at cylinder 0, head 0, sector 2: % 02x", e[:4])
	case !allZero(b[462:510]):
		c.fault(where, "it has partitions besides the protective one")
	}
}

// compareTables compares the two copies, each of which is valid for itself.
func (c *tableCheck) compareTables(primary, backup disk.GPT, last int64) {
	where := "partition table"
	if primary.Other != uint64(last) {
		c.fault("primary partition table", "it says that the backup is at LBA %d, and the disk ends at %d", primary.Other, last)
	}
	if backup.Other != 1 {
		c.fault("backup partition table", "it says that the primary is at LBA %d, not 1", backup.Other)
	}
	switch {
	case primary.UUID != backup.UUID:
		c.fault(where, "the copies differ in the disk's identifier: %s and %s", primary.UUID, backup.UUID)
	case primary.First != backup.First || primary.Last != backup.Last:
		c.fault(where, "the copies differ in the usable sectors: %d to %d, and %d to %d", primary.First, primary.Last, backup.First, backup.Last)
	case !bytes.Equal(primary.Entries, backup.Entries):
		c.fault(where, "the copies differ in their entries")
	}
}

// usePartitions judges the partitions and picks those that the other checks look at.
func (c *tableCheck) usePartitions(t disk.GPT) {
	sector := int64(c.disk.sector)
	c.parts = make([]Partition, len(t.Partitions))
	for n, p := range t.Partitions {
		c.parts[n] = Partition(p)
	}
	usableFrom, usableTo := int64(t.First)*sector, (int64(t.Last)+1)*sector
	ids := map[string]Partition{}
	for _, p := range c.parts {
		if p.Size <= 0 || p.Start < usableFrom || p.end() > usableTo || p.end() > c.disk.size {
			c.fault(p.String(), "it lies outside of the usable part of the disk: %d bytes at %d", p.Size, p.Start)
			continue
		}
		if planned(p) && (p.Start%partitionAlignment != 0 || p.Size%partitionAlignment != 0) {
			c.fault(p.String(), "it is not aligned to 1 MiB: %d bytes at %d", p.Size, p.Start)
		}
		if other, taken := ids[p.UUID]; taken {
			c.fault(p.String(), "it has the same identifier as %s: %s", other, p.UUID)
		}
		ids[p.UUID] = p
		c.pick(p)
	}
	c.checkOverlap()
	if c.rootfs == nil && len(c.others) == 0 {
		c.fault("partition table", "there is no root partition of a known architecture")
	}
	if c.esp == nil && !c.biosOnly() {
		c.faultWith("expected after --bootloader none", "partition table",
			"there is no EFI system partition, and no BIOS boot partition with boot code: nothing starts this disk")
	}
	c.say("%s", describePartitions(c.parts))
}

// planned reports whether an installation laid a partition out. Others may align theirs in another
// way.
func planned(p Partition) bool {
	return p.Name == disk.NameBIOSBoot || p.Name == disk.NameESP || p.Name == disk.NameRoot
}

// pick remembers a partition by its type.
func (c *tableCheck) pick(p Partition) {
	slot, arch := (**Partition)(nil), disk.RootArch(p.Type)
	switch {
	case p.Type == disk.TypeBIOSBoot:
		slot = &c.bios
	case p.Type == disk.TypeESP:
		slot = &c.esp
	case arch != "":
		slot = &c.rootfs
	case p.Type == typeBoot || p.Type == typeLinux:
		c.others = append(c.others, p)
		return
	default:
		c.note(p.String(), "its type %s is none that an installation makes", p.Type)
		return
	}
	if *slot != nil {
		c.fault(p.String(), "it has the same type as %s", **slot)
		return
	}
	*slot = &p
	if arch != "" {
		c.arch = arch
	}
}

func (c *tableCheck) checkOverlap() {
	sorted := slices.Clone(c.parts)
	slices.SortFunc(sorted, func(a, b Partition) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	for n := 1; n < len(sorted); n++ {
		if sorted[n].Start < sorted[n-1].end() {
			c.fault(sorted[n].String(), "it overlaps %s", sorted[n-1])
		}
	}
}

func describePartitions(parts []Partition) string {
	names := make([]string, len(parts))
	for n, p := range parts {
		names[n] = p.Name
		if p.Name == "" {
			names[n] = p.String()
		}
	}
	return "two equal copies of " + strings.Join(names, ", ")
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
