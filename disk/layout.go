package disk

import (
	"fmt"
	"strings"

	"installer/disk/fat"

	"github.com/google/uuid"
)

// Sizes of the partitions and of the table, in bytes.
const (
	mib            = 1 << 20
	alignment      = 1 * mib   // where partitions begin and end: suits every flash and RAID geometry
	biosBootSize   = 1 * mib   // a GRUB core image is a few 100 KiB
	DefaultESPSize = 512 * mib // size of the EFI system partition unless [PlanOptions] has another
	smallestRoot   = 320 * mib // mkfs.xfs refuses less than 300 MB
	gptEntries     = 128       // UEFI 2.10 section 5.3.1: at least 16 KiB of entries
	gptEntrySize   = 128
)

// Names of the partitions that [Plan] lays out.
const (
	NameBIOSBoot = "BIOS-BOOT"
	NameESP      = "EFI-SYSTEM"
	NameRoot     = "root"
)

// Partition types: UEFI 2.10 table 5.7 for the EFI system partition, the GRUB manual for BIOS boot.
const (
	TypeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
	TypeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
)

// rootTypes are the root partition types of architectures, by Go's names of these (Discoverable
// Partitions Specification, UAPI.2).
var rootTypes = map[string]string{
	"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
	"arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}

func rootType(arch string) (string, error) {
	if guid := rootTypes[arch]; guid != "" {
		return guid, nil
	}
	return "", fmt.Errorf("no root partition type is known for architecture %q; amd64 and arm64 are", arch)
}

// RootArch returns the architecture, by Go's name, whose root partitions have a type; "" for other
// types.
func RootArch(guid string) string {
	for arch, known := range rootTypes {
		if known == guid {
			return arch
		}
	}
	return ""
}

// Partition is one partition of a [Layout].
type Partition struct {
	Number int    // from 1, as in the table
	Name   string // at most 36 UTF-16 units
	Type   string // partition type GUID, lower case
	UUID   string // PARTUUID, lower case
	Start  int64  // bytes from the start of the disk
	Size   int64  // bytes
}

// End is the first byte after the partition.
func (p Partition) End() int64 { return p.Start + p.Size }

// Layout is a partition table: pure numbers, nothing written.
type Layout struct {
	UUID       string // of the disk, lower case
	DiskSize   int64  // bytes
	SectorSize int    // bytes
	Partitions []Partition
}

// Find returns the partition with a name.
func (l Layout) Find(name string) (Partition, bool) {
	for _, p := range l.Partitions {
		if p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}

// PlanOptions are the demands on the layout of a disk. Sizes are in bytes.
type PlanOptions struct {
	Arch     string // Go's name of the architecture: amd64, arm64
	BIOSBoot bool   // a BIOS boot partition for GRUB, amd64 only
	ESPSize  int64  // 0: [DefaultESPSize]
	RootSize int64  // 0: the rest of the disk
	MinRoot  int64  // least size of the root; 0: the least that the file systems accept
	// NewUUID makes the identifiers; nil: random ones (version 4).
	NewUUID func() (string, error)
}

// TooSmallError refuses a disk that is too small for the plan, or a root size that is too small for
// the image.
type TooSmallError struct {
	Need int64 // bytes that the disk must have; of the root, if Root is set
	Have int64 // bytes that it has
	Why  string
	Root bool // it is the size asked for the root that is too small
}

func (e *TooSmallError) Error() string {
	if e.Root {
		return fmt.Sprintf("the root is too small: %d bytes were asked for, and %d (%d MiB) are needed", e.Have, e.Need, e.Need/mib)
	}
	return fmt.Sprintf("the disk is too small: %s needs a disk of %d bytes (%d MiB), it has %d bytes (%d MiB)",
		e.Why, e.Need, (e.Need+mib-1)/mib, e.Have, e.Have/mib)
}

// Plan lays out a disk: BIOS boot, EFI system partition, root, each aligned to 1 MiB. It fails with
// [*TooSmallError] when they do not fit.
func Plan(size int64, sector int, o PlanOptions) (Layout, error) {
	parts, err := o.wanted(sector)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{DiskSize: size, SectorSize: sector, Partitions: parts}
	if err := l.place(o); err != nil {
		return Layout{}, err
	}
	return l, l.identify(o.NewUUID)
}

// wanted lists the partitions with their sizes; that of the root is its least size.
func (o PlanOptions) wanted(sector int) ([]Partition, error) {
	root, err := rootType(o.Arch)
	if err != nil {
		return nil, err
	}
	if o.BIOSBoot && o.Arch != "amd64" {
		return nil, fmt.Errorf("a BIOS boot partition is for amd64, not for %s", o.Arch)
	}
	if sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("planning a disk: sector size %d is not supported", sector)
	}
	esp, err := o.espSize(sector)
	if err != nil {
		return nil, err
	}
	var parts []Partition
	if o.BIOSBoot {
		parts = append(parts, Partition{Name: NameBIOSBoot, Type: TypeBIOSBoot, Size: biosBootSize})
	}
	parts = append(parts, Partition{Name: NameESP, Type: TypeESP, Size: esp})
	least := roundUp(max(o.MinRoot, smallestRoot), alignment)
	if o.RootSize != 0 {
		if o.RootSize < least {
			return nil, &TooSmallError{Need: least, Have: o.RootSize, Root: true}
		}
		least = roundUp(o.RootSize, alignment)
	}
	return append(parts, Partition{Name: NameRoot, Type: root, Size: least}), nil
}

// espSize settles the size of the EFI system partition and refuses one that could not be FAT32.
func (o PlanOptions) espSize(sector int) (int64, error) {
	size := o.ESPSize
	if size == 0 {
		size = DefaultESPSize
	}
	size = roundUp(size, alignment)
	if !fat.Plan(size, sector).IsFAT32() {
		return 0, fmt.Errorf("an EFI system partition of %d MiB is too small for FAT32 on a disk of %d-byte sectors; give it %d MiB",
			size/mib, sector, fat.Smallest(sector)/mib)
	}
	return size, nil
}

// place gives each partition its start, and the root the rest of the disk unless its size was asked
// for.
func (l *Layout) place(o PlanOptions) error {
	next := int64(alignment)
	for i := range l.Partitions {
		p := &l.Partitions[i]
		p.Number, p.Start = i+1, next
		next = p.End()
	}
	// The backup table stands behind the last usable sector; the root ends on a boundary before it.
	limit := roundDown(l.DiskSize-backupSize(l.SectorSize), alignment)
	root := &l.Partitions[len(l.Partitions)-1]
	if next > limit {
		why := fmt.Sprintf("a root of %d MiB beside the boot partitions", root.Size/mib)
		return &TooSmallError{Need: next + roundUp(backupSize(l.SectorSize), int64(l.SectorSize)), Have: l.DiskSize, Why: why}
	}
	if o.RootSize == 0 {
		root.Size = limit - root.Start
	}
	return nil
}

// backupSize returns the bytes of the backup header and entries at the end of the disk.
func backupSize(sector int) int64 { return int64(sector) + gptEntries*gptEntrySize }

// identify assigns identifiers to the disk and to each partition.
func (l *Layout) identify(make func() (string, error)) error {
	if make == nil {
		make = randomUUID
	}
	targets := []*string{&l.UUID}
	for i := range l.Partitions {
		targets = append(targets, &l.Partitions[i].UUID)
	}
	for _, t := range targets {
		id, err := make()
		if err != nil {
			return fmt.Errorf("making a partition identifier: %w", err)
		}
		*t = strings.ToLower(id)
	}
	return nil
}

func randomUUID() (string, error) {
	id, err := uuid.NewRandom()
	return id.String(), err
}

func roundUp(n, to int64) int64   { return (n + to - 1) / to * to }
func roundDown(n, to int64) int64 { return n / to * to }
