package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"installer/install"
	"installer/install/printable"
)

// writePlan shows a person the plan of an installation.
func writePlan(w io.Writer, p *install.Plan) {
	device := p.Model
	if p.Serial != "" {
		device += ", serial " + p.Serial
	}
	printable.Fprintf(w, "%s: %s, %s\n", p.Device, device, install.FormatBytes(p.Size))
	if len(p.Found) == 0 {
		fmt.Fprintln(w, "  is empty")
	}
	for _, found := range p.Found {
		printable.Fprintf(w, "  WILL BE LOST  %s", found)
		if found.Size > 0 { // it is not known of files
			printable.Fprintf(w, ", %s", install.FormatBytes(found.Size))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Planned:")
	for _, part := range p.Partitions {
		printable.Fprintf(w, "  partition %d   %-12s %10s at %s\n", part.Number, part.Name, install.FormatBytes(part.Size), install.FormatBytes(part.Start))
	}
	for _, f := range p.Mounted {
		printable.Fprintf(w, "  %-13s %s on %s, at %s\n", f.Role, f.Type, f.Device, f.MountPoint)
	}
	root := "root"
	if len(p.Mounted) > 0 {
		root = "content" // of a root that is made already
	}
	rows := [][2]string{
		{root, fmt.Sprintf("%s, needs %s", p.Filesystem, install.FormatBytes(p.RootNeed))},
		{"image", p.Source},
		{"digest", p.Digest},
		{"updates from", cmp.Or(p.Target, "nowhere: no image was named")},
		{"binds", boundText(p.BoundImages)},
		{"stateroot", p.Stateroot},
		{"boot loader", fmt.Sprintf("%s for %s", p.Bootloader, p.Firmware)},
		{"signed by", signedText(p)},
		{"kernel args", strings.Join(p.Kargs, " ")},
		{"configured by", strings.Join(p.Config, ", ")},
	}
	writeRows(w, rows)
}

// signedText says where the signed boot loader comes from.
func signedText(p *install.Plan) string {
	if p.Signed == "" {
		return ""
	}
	return fmt.Sprintf("the distribution, for UEFI with Secure Boot: %s", p.Signed)
}

// boundText names the images that are brought along.
func boundText(images []install.BoundImage) string {
	var texts []string
	for _, img := range images {
		texts = append(texts, fmt.Sprintf("%s (%s)", img.Name, img.Digest))
	}
	return strings.Join(texts, ", ")
}
