package page

import (
	"cmp"
	"fmt"
	"slices"

	"installer/install"
)

// diskPicture is a disk from its first byte to its last, to scale.
type diskPicture struct {
	Size  string
	Parts []part
	Drawn []part // the same, the widest first: the thin ones lie on top
	Free  string // space in no partition
}

// part is a partition in the picture. X and Width are thousandths of the disk.
type part struct {
	Number, Colour    int
	Name, UUID        string
	Type, TypeGUID    string
	Content           string
	Start, Length     string
	Share             string
	X, Width          float64
	HasRoomForItsName bool
}

// Colours of the picture, which the style sheet has by their numbers.
const partColours = 5

// leastPart is the least visible width, in thousandths.
const leastPart = 3

// roomForName is the width from which a partition's name fits into it.
const roomForName = 120

// partition holds the facts that any report has of a partition.
type partition struct {
	number      int
	name, typ   string
	uuid        string
	start, size int64
	content     string
}

// drawDisk makes the picture; nil if nothing is known of the disk.
func drawDisk(size int64, parts []partition) *diskPicture {
	if size <= 0 || len(parts) == 0 {
		return nil
	}
	d := &diskPicture{Size: install.FormatBytes(size)}
	var used int64
	scale := func(n int64) float64 { return float64(n) / float64(size) * 1000 }
	for i, p := range parts {
		used += p.size
		width := max(scale(p.size), leastPart)
		d.Parts = append(d.Parts, part{
			Number: p.number, Colour: i % partColours, Name: p.name, UUID: p.uuid,
			Type: typeName(p.typ), TypeGUID: p.typ, Content: p.content,
			Start: install.FormatBytes(p.start), Length: install.FormatBytes(p.size),
			Share: fmt.Sprintf("%.1f %%", scale(p.size)/10),
			X:     min(scale(p.start), 1000-width), Width: width, HasRoomForItsName: width >= roomForName,
		})
	}
	d.Drawn = slices.SortedStableFunc(slices.Values(d.Parts), func(a, b part) int { return cmp.Compare(b.Width, a.Width) })
	if free := size - used; free > 0 {
		d.Free = install.FormatBytes(free)
	}
	return d
}

// typeName returns the name of a partition type: UEFI 2.10 table 5.7, the GRUB
// manual, and the Discoverable Partitions Specification (UAPI.2).
func typeName(guid string) string {
	names := map[string]string{
		"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system partition",
		"21686148-6449-6e6f-744e-656564454649": "BIOS boot",
		"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "root (x86-64)",
		"b921b045-1df0-41c3-af44-4c6f280d3fae": "root (ARM64)",
		"0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux data",
		"bc13c2ff-59e6-4262-a352-b275fd6f7172": "extended boot",
	}
	if name, ok := names[guid]; ok {
		return name
	}
	return "other"
}
