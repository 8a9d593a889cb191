package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"strings"

	"installer/disk"
)

// partitionAlignment is where installations let partitions begin and end, in bytes.
const partitionAlignment = 1 << 20

// checkTable reads and judges both copies of the table. The other checks go on with the better
// copy.
func (i *inspection) checkTable(context.Context) error {
	sector := i.source.sector
	last := i.source.size/int64(sector) - 1
	if last < 2 {
		i.fault(i.opts.Disk, "%d bytes are too few for a partition table", i.source.size)
		return nil
	}
	i.checkProtectiveMBR()
	primary, primaryErr := readTable(i.disk, sector, 1)
	if primaryErr != nil {
		i.faultWith("restore it from the backup at the end of the disk, such as by sgdisk --load-backup or gdisk",
			"primary partition table", "%v", primaryErr)
	}
	backup, backupErr := readTable(i.disk, sector, last)
	if backupErr != nil {
		i.faultWith("if the disk was made larger: sgdisk --move-second-header", "backup partition table", "%v", backupErr)
	}
	switch {
	case primaryErr == nil && backupErr == nil:
		i.compareTables(primary, backup, last)
		i.usePartitions(primary)
	case primaryErr == nil:
		i.usePartitions(primary)
	case backupErr == nil:
		i.usePartitions(backup)
	}
	return nil
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
func (i *inspection) checkProtectiveMBR() {
	const where = "boot sector"
	b := make([]byte, 512)
	if _, err := i.disk.ReadAt(b, 0); err != nil {
		i.fault(where, "it cannot be read: %v", err)
		return
	}
	i.bootCode = !allZero(b[:440])
	if b[510] != 0x55 || b[511] != 0xaa {
		i.fault(where, "it does not end in 55 aa but in %02x %02x", b[510], b[511])
	}
	e := b[446:462]
	sectors := uint64(i.source.size / int64(i.source.sector))
	start, size := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
	switch {
	case e[4] != 0xee:
		i.fault(where, "its first partition is not the protective one: type %#02x", e[4])
	case start != 1 || uint64(size) != min(sectors-1, 0xffffffff):
		i.fault(where, "its protective partition has %d sectors from %d on, not %d from 1 on", size, start, min(sectors-1, 0xffffffff))
	case e[0]&0x7f != 0 || !bytes.Equal(e[1:4], []byte{0, 2, 0}):
		i.fault(where, "its protective partition does not begin at cylinder 0, head 0, sector 2: % 02x", e[:4])
	case !allZero(b[462:510]):
		i.fault(where, "it has partitions besides the protective one")
	}
}

// compareTables compares the two copies, each of which is valid for itself.
func (i *inspection) compareTables(primary, backup disk.GPT, last int64) {
	where := "partition table"
	if primary.Other != uint64(last) {
		i.fault("primary partition table", "it says that the backup is at LBA %d, and the disk ends at %d", primary.Other, last)
	}
	if backup.Other != 1 {
		i.fault("backup partition table", "it says that the primary is at LBA %d, not 1", backup.Other)
	}
	switch {
	case primary.UUID != backup.UUID:
		i.fault(where, "the copies differ in the disk's identifier: %s and %s", primary.UUID, backup.UUID)
	case primary.First != backup.First || primary.Last != backup.Last:
		i.fault(where, "the copies differ in the usable sectors: %d to %d, and %d to %d", primary.First, primary.Last, backup.First, backup.Last)
	case !bytes.Equal(primary.Entries, backup.Entries):
		i.fault(where, "the copies differ in their entries")
	}
}

// usePartitions judges the partitions and picks those that the other checks look at.
func (i *inspection) usePartitions(c disk.GPT) {
	sector := int64(i.source.sector)
	i.parts = make([]Partition, len(c.Partitions))
	for n, p := range c.Partitions {
		i.parts[n] = Partition(p)
	}
	i.report.Disk.Partitions = i.parts
	usableFrom, usableTo := int64(c.First)*sector, (int64(c.Last)+1)*sector
	ids := map[string]Partition{}
	for _, p := range i.parts {
		if p.Size <= 0 || p.Start < usableFrom || p.end() > usableTo || p.end() > i.source.size {
			i.fault(p.String(), "it lies outside of the usable part of the disk: %d bytes at %d", p.Size, p.Start)
			continue
		}
		if planned(p) && (p.Start%partitionAlignment != 0 || p.Size%partitionAlignment != 0) {
			i.fault(p.String(), "it is not aligned to 1 MiB: %d bytes at %d", p.Size, p.Start)
		}
		if other, taken := ids[p.UUID]; taken {
			i.fault(p.String(), "it has the same identifier as %s: %s", other, p.UUID)
		}
		ids[p.UUID] = p
		i.pick(p)
	}
	i.checkOverlap()
	if i.rootfs == nil && len(i.others) == 0 {
		i.fault("partition table", "there is no root partition of a known architecture")
	}
	if i.esp == nil && !i.biosOnly() {
		i.faultWith("expected after --bootloader none", "partition table",
			"there is no EFI system partition, and no BIOS boot partition with boot code: nothing starts this disk")
	}
	i.say("%s", describePartitions(i.parts))
}

// planned reports whether an installation laid a partition out. Others may align theirs in another
// way.
func planned(p Partition) bool {
	return p.Name == disk.NameBIOSBoot || p.Name == disk.NameESP || p.Name == disk.NameRoot
}

// pick remembers a partition by its type.
func (i *inspection) pick(p Partition) {
	slot, arch := (**Partition)(nil), disk.RootArch(p.Type)
	switch {
	case p.Type == disk.TypeBIOSBoot:
		slot = &i.bios
	case p.Type == disk.TypeESP:
		slot = &i.esp
	case arch != "":
		slot = &i.rootfs
	case p.Type == typeBoot || p.Type == typeLinux:
		i.others = append(i.others, p)
		return
	default:
		i.note(p.String(), "its type %s is none that an installation makes", p.Type)
		return
	}
	if *slot != nil {
		i.fault(p.String(), "it has the same type as %s", **slot)
		return
	}
	*slot = &p
	if arch != "" {
		i.arch = arch
	}
}

func (i *inspection) checkOverlap() {
	sorted := slices.Clone(i.parts)
	slices.SortFunc(sorted, func(a, b Partition) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	for n := 1; n < len(sorted); n++ {
		if sorted[n].Start < sorted[n-1].end() {
			i.fault(sorted[n].String(), "it overlaps %s", sorted[n-1])
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
