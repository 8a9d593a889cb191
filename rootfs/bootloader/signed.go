package bootloader

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"installer/rootfs/bootloader/payload"
)

// writeSigned puts the image's signed loaders on the EFI system partition, after the files that
// they read. The program that the firmware starts is the last file: until then the disk does not
// look bootable.
func writeSigned(t Target, p platform) error {
	if t.ESP == nil {
		return errors.New("a signed boot loader needs an EFI system partition, and there is none")
	}
	if t.Signed.Loader == payload.GRUB {
		if err := writeSignedConfig(t); err != nil {
			return err
		}
	}
	started := path.Join("EFI/BOOT", p.efiImage)
	last := func(f payload.File) bool { return strings.EqualFold(f.To, started) }
	for _, f := range t.Signed.Files {
		if last(f) {
			continue
		}
		if err := copySigned(t, f); err != nil {
			return err
		}
	}
	n := slices.IndexFunc(t.Signed.Files, last)
	if n < 0 {
		return fmt.Errorf("the image's signed loaders have no %s, which the firmware starts", started)
	}
	return copySigned(t, t.Signed.Files[n])
}

// writeSignedConfig writes the configuration of a signed GRUB into the directory that it has built
// in.
func writeSignedConfig(t Target) error {
	if err := CheckSignedGRUB(t.Signed.GRUB, t.Arch, t.Filesystem); err != nil {
		return err
	}
	files, err := SignedConfig(t.Signed.GRUB, t.BootUUID, t.BootPartition)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeESP(t.ESP, path.Join("EFI", t.Signed.Vendor, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// copySigned copies a file of the image.
func copySigned(t Target, f payload.File) error {
	file, err := t.Tree.Open(f.From)
	if err != nil {
		return fmt.Errorf("opening /%s of the image: %w", f.From, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading the size of /%s of the image: %w", f.From, err)
	}
	return copyToESP(t.ESP, f.To, file, info.Size())
}
