package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// loaderConfig is systemd-boot's own configuration: a short time to choose, and the newest entry as
// the default.
const loaderConfig = "timeout 1\nconsole-mode keep\n"

// entriesFormat is the mark of bootctl(1) for entries of the Boot Loader Specification's type 1.
const entriesFormat = "type1\n"

func systemdBootPath(p platform) string { return path.Join("usr/lib/systemd/boot/efi", p.systemd) }

func checkSystemdBoot(tree fs.FS, fw Firmware, p platform) error {
	if fw.BIOS {
		return fmt.Errorf("systemd-boot serves UEFI alone: for BIOS use --bootloader %s", GRUB)
	}
	missing := MissingError{Loader: SystemdBoot, Firmware: "UEFI", Packages: []string{"systemd-boot-efi", "systemd-boot-unsigned"}}
	if _, err := require(tree, missing, systemdBootPath(p)); err != nil {
		return err
	}
	_, err := readSystemdBoot(tree, p)
	return err
}

// readSystemdBoot reads the loader, which must be a program that the firmware starts.
func readSystemdBoot(tree fs.FS, p platform) ([]byte, error) {
	name := systemdBootPath(p)
	loader, err := readFile(tree, name, maxGRUBFile)
	if err != nil {
		return nil, fmt.Errorf("reading systemd-boot: %w", err)
	}
	if err := checkEFIImage(loader, p.peMachine); err != nil {
		return nil, &ProgramError{Path: name, Err: err}
	}
	return loader, nil
}

// ProgramError reports a file of the image that is no program which the firmware starts.
type ProgramError struct {
	Path string // relative to the image's root
	Err  error
}

func (e *ProgramError) Error() string {
	return fmt.Sprintf("checking /%s of the image: %v", e.Path, e.Err)
}

// Unwrap returns the reason.
func (e *ProgramError) Unwrap() error { return e.Err }

// installSystemdBoot copies loader, entry, kernel and initramfs to the EFI system partition, the
// only one that systemd-boot reads. Nothing repeats that when the system is updated.
func installSystemdBoot(t Target) error {
	p, err := platformOf(t.Arch)
	if err != nil {
		return err
	}
	if t.ESP == nil || t.Boot == nil {
		return errors.New("systemd-boot needs an EFI system partition and the directory boot of the root file system")
	}
	if err := copyEntry(t); err != nil {
		return err
	}
	if err := writeESP(t.ESP, "loader/loader.conf", []byte(loaderConfig)); err != nil {
		return err
	}
	if err := writeESP(t.ESP, "loader/entries.srel", []byte(entriesFormat)); err != nil {
		return err
	}
	if t.Signed != nil {
		return writeSigned(t, p)
	}
	loader, err := readSystemdBoot(t.Tree, p)
	if err != nil {
		return err
	}
	for _, name := range []string{path.Join("EFI/systemd", p.systemd), path.Join("EFI/BOOT", p.efiImage)} {
		if err := writeESP(t.ESP, name, loader); err != nil {
			return err
		}
	}
	return nil
}

// copyEntry copies the boot entry and the files that it names. On the partition their paths are
// those within the boot directory, whatever they begin with in the entry.
func copyEntry(t Target) error {
	if t.Entry.Name == "" || strings.ContainsAny(t.Entry.Name, "/\\") {
		return fmt.Errorf("boot entry %q has no file name to copy it by", t.Entry.Name)
	}
	var text strings.Builder
	var files []string
	for line := range strings.Lines(t.Entry.Text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if key == "linux" || key == "initrd" || key == "devicetree" {
			name := bootRelative(value)
			files = append(files, name)
			line = key + " /" + name + "\n"
		}
		text.WriteString(line)
	}
	if len(files) == 0 {
		return fmt.Errorf("boot entry %s names no kernel", t.Entry.Name)
	}
	for _, name := range files {
		if err := copyBootFile(t, name); err != nil {
			return err
		}
	}
	return writeESP(t.ESP, path.Join("loader/entries", t.Entry.Name), []byte(text.String()))
}

// bootRelative takes the beginning /boot off a path, as it stands there when sysroot.bootprefix is
// set.
func bootRelative(name string) string {
	rest := strings.TrimPrefix(path.Clean("/"+name), "/")
	return strings.TrimPrefix(rest, "boot/")
}

func copyBootFile(t Target, name string) error {
	file, err := t.Boot.Open(name)
	if err != nil {
		return fmt.Errorf("opening /boot/%s, which the boot entry names: %w", name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading the size of /boot/%s: %w", name, err)
	}
	return copyToESP(t.ESP, name, file, info.Size())
}
