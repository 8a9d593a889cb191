package payload

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// part is one file of Debian's packages.
type part struct {
	from     []string // candidates in the image: Debian's name first
	to       []string // on the partition; VENDOR stands for the distribution's directory
	optional bool     // a system starts without it
}

// parts lists the files of signed packages. The fallback is not in BOOT, where shim would start it
// instead of the loader beside it, and with a TPM restart the machine: it is for machines that lose
// their boot entries, and those find a whole loader in BOOT.
func (m machine) parts(loader Loader) []part {
	const lib = "usr/lib/shim/"
	signed := func(name string) []string { return []string{lib + name + ".signed", lib + name} }
	first := []string{lib + m.shim() + ".signed", lib + m.shim() + ".signed.latest"}
	if loader == SystemdBoot {
		main := "usr/lib/systemd/boot/efi/systemd-boot" + m.suffix + ".efi.signed"
		return []part{
			{first, []string{"BOOT/" + m.removable()}, false},
			{[]string{main}, []string{"BOOT/" + m.grub(), "systemd/systemd-boot" + m.suffix + ".efi"}, false},
			{signed(m.manager()), []string{"BOOT/" + m.manager()}, false},
		}
	}
	main := path.Join("usr/lib/grub", m.targetGRUB+"-signed", m.grub()+".signed")
	return []part{
		{first, []string{"BOOT/" + m.removable(), "VENDOR/" + m.shim()}, false},
		{[]string{main}, []string{"BOOT/" + m.grub(), "VENDOR/" + m.grub()}, false},
		{signed(m.manager()), []string{"BOOT/" + m.manager(), "VENDOR/" + m.manager()}, false},
		{signed(m.fallback()), []string{"VENDOR/" + m.fallback()}, true},
		{[]string{lib + m.csv()}, []string{"VENDOR/" + m.csv()}, true},
	}
}

// packages finds the files of Debian's signed packages, and of its derivatives'.
func packages(tree Tree, m machine, loader Loader) (*Payload, error) {
	p := &Payload{}
	var missing *MissingError
	var parts []part
	for _, want := range m.parts(loader) {
		from, err := first(tree, want.from)
		switch {
		case err != nil:
			return nil, err
		case from == "" && !want.optional && missing == nil:
			missing = &MissingError{"/" + want.from[0], m.bring(path.Base(want.to[0]), loader)}
		case from != "":
			parts = append(parts, part{from: []string{from}, to: want.to, optional: want.optional})
		}
	}
	// The packages without "signed" in their names bring files of shim too, which are not signed.
	if !slices.ContainsFunc(parts, func(p part) bool { return strings.Contains(p.from[0], ".signed") }) {
		return nil, ErrAbsent
	}
	if missing != nil {
		return nil, missing
	}
	var err error
	if p.Vendor, err = vendorOf(tree, m, loader, parts[1].from[0]); err != nil {
		return nil, err
	}
	for _, have := range parts {
		for _, to := range have.to {
			p.Files = append(p.Files, File{have.from[0], "EFI/" + strings.Replace(to, "VENDOR", p.Vendor, 1)})
		}
	}
	return p, nil
}

// vendorOf returns the vendor's directory, which GRUB has built in and systemd-boot does not use.
func vendorOf(tree Tree, m machine, loader Loader, name string) (string, error) {
	if loader != GRUB {
		return "", nil
	}
	grub, err := grubOf(tree, name)
	if err != nil {
		return "", err
	}
	vendor, ok := strings.CutPrefix(grub.Prefix, "/EFI/")
	if !ok || vendor == "" || strings.ContainsAny(vendor, `/\`) || strings.EqualFold(vendor, "BOOT") {
		return "", &LayoutError{fmt.Sprintf("GRUB's configuration is in %q, which is no vendor's directory", grub.Prefix)}
	}
	return vendor, nil
}

// first returns the first candidate that is a regular file of the tree, "" if none is.
func first(tree fs.FS, candidates []string) (string, error) {
	for _, name := range candidates {
		info, err := fs.Stat(tree, name)
		if err == nil && info.Mode().IsRegular() {
			return name, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for /%s in the image: %w", name, err)
		}
	}
	return "", nil
}
