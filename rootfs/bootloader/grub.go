package bootloader

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// memdiskName is the name of the memory disk in the directory that the image's programs see as
// /tmp.
const memdiskName = "memdisk.tar"

// checkGRUB checks that the tree has GRUB's image maker and its files for each wanted platform.
func checkGRUB(tree fs.FS, n Needs, p platform) error {
	fw := n.Firmware
	if !fw.UEFI && !fw.BIOS {
		return nil
	}
	tool := MissingError{Loader: GRUB, Firmware: fw.String(), Packages: []string{"grub-common", "grub2-tools-minimal"}}
	if _, err := require(tree, tool, grubMkimagePaths()...); err != nil {
		return err
	}
	if fw.UEFI {
		missing := MissingError{Loader: GRUB, Firmware: "UEFI", Packages: p.grubPackages}
		if err := requireGRUBFiles(tree, missing, p.grubEFI, "kernel.img"); err != nil {
			return err
		}
		if _, err := chooseModules(tree, p.grubEFI, n.Filesystem); err != nil {
			return err
		}
	}
	switch {
	case !fw.BIOS:
		return nil
	case p.grubBIOS == "":
		return fmt.Errorf("machines of architecture %s have no BIOS: %s serves UEFI there", n.Arch, GRUB)
	case n.SectorSize != 0 && n.SectorSize != biosSector:
		return &SectorError{Size: n.SectorSize}
	}
	missing := MissingError{Loader: GRUB, Firmware: "BIOS", Packages: []string{"grub-pc-bin", "grub2-pc-modules"}}
	if err := requireGRUBFiles(tree, missing, p.grubBIOS, "kernel.img", "boot.img", "diskboot.img", "lzma_decompress.img"); err != nil {
		return err
	}
	_, err := chooseModules(tree, p.grubBIOS, n.Filesystem)
	return err
}

// SectorError reports a disk with sectors of a size that no BIOS starts from.
type SectorError struct{ Size int }

func (e *SectorError) Error() string {
	return fmt.Sprintf("GRUB for BIOS needs sectors of %d bytes, and the disk has sectors of %d: such a disk starts under UEFI only",
		biosSector, e.Size)
}

func requireGRUBFiles(tree fs.FS, missing MissingError, target string, names ...string) error {
	for _, name := range append(names, "moddep.lst", linuxModule+".mod") {
		if _, err := require(tree, missing, path.Join(grubDir(target), name)); err != nil {
			return err
		}
	}
	return nil
}

// grubMkimagePaths lists where distributions put GRUB's image maker.
func grubMkimagePaths() []string {
	return []string{"usr/bin/grub-mkimage", "usr/bin/grub2-mkimage"}
}

// installGRUB makes every image first, and writes only when all of them are sound.
func installGRUB(ctx context.Context, t Target) error {
	p, err := platformOf(t.Arch)
	if err != nil {
		return err
	}
	config, err := grubConfig(t)
	if err != nil {
		return err
	}
	if err := CheckEntry(t.Entry); err != nil {
		return err
	}
	var efi []byte
	var bios *biosCode
	if t.Firmware.UEFI && t.Signed == nil {
		if efi, err = makeEFIImage(ctx, t, p); err != nil {
			return err
		}
	}
	if t.Firmware.BIOS {
		if bios, err = makeBIOSCode(ctx, t, p); err != nil {
			return err
		}
	}
	return writeGRUB(t, p, config, efi, bios)
}

// writeGRUB writes the configuration first and the boot sector last: until then the disk does not
// look bootable.
func writeGRUB(t Target, p platform, config, efi []byte, bios *biosCode) error {
	if err := writeGRUBConfig(t, config); err != nil {
		return err
	}
	if t.Firmware.UEFI && t.Signed != nil {
		if err := writeSigned(t, p); err != nil {
			return err
		}
	}
	if efi != nil {
		if err := writeESP(t.ESP, path.Join("EFI/BOOT", p.efiImage), efi); err != nil {
			return err
		}
	}
	if bios != nil {
		return bios.write(t.Disk)
	}
	return nil
}

// writeGRUBConfig puts the configuration where each loader looks for it: that for UEFI on the
// partition that it was started from, that for BIOS there too if the disk has that partition.
func writeGRUBConfig(t Target, config []byte) error {
	if t.Firmware.UEFI && t.ESP == nil {
		return errors.New("GRUB for UEFI needs an EFI system partition, and there is none")
	}
	if t.ESP != nil && t.Signed == nil {
		if err := writeESP(t.ESP, path.Join("EFI", t.vendor(), "grub.cfg"), config); err != nil {
			return err
		}
	}
	if !t.Firmware.BIOS || t.onESP() {
		return nil
	}
	if err := copyCompared(t.BootDir, bootConfig, bytes.NewReader(config), int64(len(config))); err != nil {
		return fmt.Errorf("in the directory boot: %w", err)
	}
	return nil
}

// bootConfig is the configuration of GRUB for BIOS in the directory boot, on a disk whose EFI system
// partition has none for it.
const bootConfig = "grub/grub.cfg"

// onESP reports whether GRUB for BIOS finds its configuration on the EFI system partition. There a
// signed GRUB has another configuration.
func (t Target) onESP() bool { return t.ESP != nil && t.ESPPartition > 0 && t.Signed == nil }

// biosPrefix is where GRUB for BIOS looks for its configuration: a partition of the disk that it
// was started from. The directory boot is reached by that name on a file system of its own too, by
// a link that leads to itself.
func (t Target) biosPrefix() string {
	if t.onESP() {
		return fmt.Sprintf("(,gpt%d)/EFI/%s", t.ESPPartition, t.vendor())
	}
	return fmt.Sprintf("(,gpt%d)/boot/%s", t.BootPartition, path.Dir(bootConfig))
}

// makeEFIImage has the image's GRUB make the loader for UEFI. Its prefix names no device: GRUB adds
// the one that the firmware loaded it from.
func makeEFIImage(ctx context.Context, t Target, p platform) ([]byte, error) {
	efi, err := makeGRUBImage(ctx, t, p.grubEFI, "/EFI/"+t.vendor())
	if err != nil {
		return nil, err
	}
	if err := checkEFIImage(efi, p.peMachine); err != nil {
		return nil, fmt.Errorf("checking the image that grub-mkimage made for %s: %w", p.grubEFI, err)
	}
	return efi, nil
}

// makeGRUBImage runs grub-mkimage of the deployment for one platform and returns the image.
func makeGRUBImage(ctx context.Context, t Target, target, prefix string) ([]byte, error) {
	if t.Run == nil {
		return nil, errors.New("no way to run the image's grub-mkimage was given")
	}
	modules, err := chooseModules(t.Tree, target, t.Filesystem)
	if err != nil {
		return nil, err
	}
	memdisk, err := makeMemdisk(t.Tree, target, modules.late)
	if err != nil {
		return nil, err
	}
	tool, err := require(t.Tree, MissingError{Loader: GRUB}, grubMkimagePaths()...)
	if err != nil {
		return nil, err
	}
	// -m sets the prefix too, so -p has to follow it.
	argv := []string{"/" + tool, "-O", target, "-d", "/" + grubDir(target), "-m", "/tmp/" + memdiskName, "-p", prefix}
	image, err := t.Run(ctx, slices.Concat(argv, modules.core), map[string][]byte{memdiskName: memdisk})
	if err != nil {
		return nil, fmt.Errorf("making GRUB's image for %s with the image's own %s: %w", target, tool, err)
	}
	if len(image) == 0 {
		return nil, fmt.Errorf("making GRUB's image for %s: %s succeeded and wrote nothing", target, tool)
	}
	return image, nil
}

// maxGRUBFile bounds a file of the image's GRUB, in bytes.
const maxGRUBFile = 4 << 20

// makeMemdisk packs the late modules and the translation of errors to nothing into the archive that
// becomes the image's memory disk. Equal input gives equal bytes.
func makeMemdisk(tree fs.FS, target string, modules []string) ([]byte, error) {
	var buf bytes.Buffer
	archive := tar.NewWriter(&buf)
	add := func(name string, data []byte) error {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	for _, m := range modules {
		data, err := readFile(tree, path.Join(grubDir(target), m+".mod"), maxGRUBFile)
		if err != nil {
			return nil, fmt.Errorf("reading GRUB's module %s: %w", m, err)
		}
		if err := add(m+".mod", data); err != nil {
			return nil, fmt.Errorf("packing GRUB's memory disk: %w", err)
		}
	}
	if err := errors.Join(add("quiet.mo", quietCatalogue()), archive.Close()); err != nil {
		return nil, fmt.Errorf("packing GRUB's memory disk: %w", err)
	}
	return buf.Bytes(), nil
}

// quietCatalogue returns a message catalogue (GNU gettext, "The Format of GNU MO Files") that
// translates GRUB's error message to nothing. It is in force while boot entries are read: GRUB has
// no other way to pass over an unknown key.
func quietCatalogue() []byte {
	const header = 7 * 4
	texts := [][2]string{{"", ""}, {"error: %s.\n", "%.0s"}}
	le := binary.LittleEndian
	count := uint32(len(texts))
	file := le.AppendUint32(nil, 0x950412de)
	for _, word := range []uint32{0, count, header, header + 8*count, 0, 0} {
		file = le.AppendUint32(file, word)
	}
	at := header + 2*8*count
	var strings []byte
	for column := range 2 {
		for _, pair := range texts {
			text := pair[column]
			file = le.AppendUint32(le.AppendUint32(file, uint32(len(text))), at+uint32(len(strings)))
			strings = append(append(strings, text...), 0)
		}
	}
	return append(file, strings...)
}
