package verify

import (
	"bytes"
	"context"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"installer/disk/fsinfo"
)

// espLimit is the largest boot loader or configuration that is read, in bytes.
const espLimit = 64 << 20

// efiApplication is the subsystem of an image that firmware may start (Microsoft PE format).
const efiApplication = 10

// efiLoader is the program that firmware starts from a disk of which it knows nothing, by architecture as Go names it
// (UEFI 2.10 section 3.5.1.1), with its machine type.
func efiLoader(arch string) (name string, machine uint16) {
	if arch == "arm64" {
		return "EFI/BOOT/BOOTAA64.EFI", pe.IMAGE_FILE_MACHINE_ARM64
	}
	return "EFI/BOOT/BOOTX64.EFI", pe.IMAGE_FILE_MACHINE_AMD64
}

func espPath(name string) string { return "ESP:" + path.Join("/", name) }

// checkESP checks the FAT file system as a structure.
func (i *inspection) checkESP(context.Context) error {
	if i.esp == nil {
		i.notApplicable("there is none: the disk starts under BIOS only")
		return nil
	}
	r := io.NewSectionReader(i.disk, i.esp.Start, i.esp.Size)
	v, err := openFAT(r, i.esp.Size)
	if err != nil {
		i.fault(i.esp.String(), "%v", err)
		return nil
	}
	i.fat = v
	if _, err := fsinfo.CheckClean(fsinfo.VFAT, r); err != nil {
		i.fault(i.esp.String(), "%v", err)
	}
	for _, problem := range v.structure() {
		i.fault(i.esp.String(), "%s", problem)
	}
	v.walk(func(where, what string) {
		if where == "" {
			i.fault(i.esp.String(), "%s", what)
			return
		}
		i.fault(espPath(where), "%s", what)
	})
	i.say("FAT32 with %d files, not in use", len(v.files))
	return nil
}

// checkBootFiles checks the form of what the firmware and the boot loaders read from the partition.
func (i *inspection) checkBootFiles(context.Context) error {
	if i.esp == nil {
		i.notApplicable("there is no EFI system partition: the disk starts under BIOS only")
		return nil
	}
	loader, machine := efiLoader(i.architecture())
	_, uefi := i.fat.find(loader)
	if !uefi && !i.bootCode {
		i.faultWith("expected after --bootloader none", espPath(loader), "it is missing, and the boot sector has no code: nothing starts this disk")
	}
	programs, configs, entries := 0, 0, 0
	for _, name := range i.fat.names {
		f, ok := i.fat.find(name)
		if !ok {
			continue
		}
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "efi/") && strings.HasSuffix(lower, ".efi"):
			programs++
			i.checkProgram(f, machine)
		case strings.HasPrefix(lower, "efi/") && path.Base(lower) == "grub.cfg":
			configs++
			i.checkGRUBConfig(f)
		case strings.HasPrefix(lower, "loader/entries/") && strings.HasSuffix(lower, ".conf"):
			entries++
			i.checkESPEntry(f)
		}
	}
	if configs == 0 && entries == 0 {
		i.fault(i.esp.String(), "it has neither a configuration of GRUB nor boot entries: no boot loader finds the system")
	}
	i.say("%d EFI programs, %d configurations of GRUB, %d boot entries", programs, configs, entries)
	return nil
}

// checkProgram checks that firmware of the disk's architecture would start a program.
func (i *inspection) checkProgram(f *fatFile, machine uint16) {
	data, err := i.fat.readFile(f, espLimit)
	if err == nil {
		err = checkEFIProgram(data, machine)
	}
	if err != nil {
		i.fault(espPath(f.path), "%v", err)
	}
}

func checkEFIProgram(data []byte, machine uint16) error {
	file, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("it is no EFI program: %w", err)
	}
	defer file.Close()
	if len(data) < 2 || string(data[:2]) != "MZ" {
		return errors.New("it is no EFI program: it does not begin with MZ")
	}
	header, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	switch {
	case !ok || header.Subsystem != efiApplication:
		return errors.New("it is a program, but no 64-bit EFI application")
	case file.Machine != machine:
		return fmt.Errorf("it is for machine type %#x, and the system for %#x", file.Machine, machine)
	}
	for _, s := range file.Sections {
		if int64(s.Offset)+int64(s.Size) > int64(len(data)) {
			return fmt.Errorf("its section %s ends at %d, and the file at %d", s.Name, int64(s.Offset)+int64(s.Size), len(data))
		}
	}
	return nil
}

// uuidPattern is how a file system is named in the configuration of a boot loader.
var uuidPattern = regexp.MustCompile(`\b[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b`)

// checkGRUBConfig checks a configuration of GRUB on the EFI system partition.
func (i *inspection) checkGRUBConfig(f *fatFile) {
	text, err := i.fat.readFile(f, espLimit)
	if err != nil {
		i.fault(espPath(f.path), "%v", err)
		return
	}
	i.judgeGRUBConfig(espPath(f.path), string(text))
}

// judgeGRUBConfig checks that GRUB looks for the boot entries on the file system of this disk that has them: the root, or
// one of their own.
func (i *inspection) judgeGRUBConfig(where, text string) {
	known := i.entriesOn()
	if len(known) == 0 {
		return
	}
	what, want := "the root", strings.Join(known, " or ")
	if i.boot != nil {
		what = "/boot"
	}
	found := false
	named := append(searchedFor(text), uuidPattern.FindAllString(text, -1)...)
	slices.Sort(named)
	for _, id := range slices.Compact(named) {
		if slices.Contains(known, strings.ToLower(id)) {
			found = true
			continue
		}
		i.fault(where, "it names the file system %s, and %s is %s", id, what, want)
	}
	if !found {
		i.fault(where, "it does not look for the file system of %s, %s", what, want)
	}
}

// searchedFor returns what GRUB's command search is to look for by UUID, however damaged that is; see "search" in GRUB's
// manual. What a variable stands for is not known.
func searchedFor(text string) []string {
	var ids []string
	for line := range strings.Lines(text) {
		command, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		_, arguments, is := strings.Cut(" "+command, " search ")
		if !is || strings.HasPrefix(command, "#") || !strings.Contains(arguments, "--fs-uuid") {
			continue
		}
		before := ""
		for word := range strings.FieldsSeq(arguments) {
			if strings.HasPrefix(word, "#") {
				break // a comment
			}
			ofOption := before == "--set" || strings.HasPrefix(before, "--hint") && !strings.Contains(before, "=")
			if !ofOption && !strings.HasPrefix(word, "-") && !strings.Contains(word, "$") {
				ids = append(ids, strings.Trim(word, `"'`))
			}
			before = word
		}
	}
	return ids
}

// checkESPEntry checks a boot entry that a loader reads from this partition: its files are here, too.
func (i *inspection) checkESPEntry(f *fatFile) {
	text, err := i.fat.readFile(f, espLimit)
	if err != nil {
		i.fault(espPath(f.path), "%v", err)
		return
	}
	entry, problems := parseEntry(path.Base(f.path), string(text))
	for _, problem := range problems {
		i.fault(espPath(f.path), "%s", problem)
	}
	for _, name := range entry.files() {
		if _, ok := i.fat.find(name); !ok {
			i.fault(espPath(f.path), "it names %s, which is not on the EFI system partition", name)
		}
	}
	i.checkRootArgument(espPath(f.path), entry)
}

// checkRootArgument checks that the kernel is told of the root that is on this disk.
func (i *inspection) checkRootArgument(where string, e *bootEntry) {
	id, ok := i.rootUUID()
	if !ok {
		return
	}
	i.checkBootArgument(where, e)
	for _, arg := range e.options {
		if value, isRoot := strings.CutPrefix(arg, "root="); isRoot {
			if !strings.EqualFold(value, "UUID="+id) {
				i.fault(where, "its kernel argument is root=%s, and the root file system has UUID %s", value, id)
			}
			return
		}
	}
	i.fault(where, "it has no kernel argument root=")
}

// checkBootArgument checks that the system mounts the /boot that is on this disk, where it is told of one.
func (i *inspection) checkBootArgument(where string, e *bootEntry) {
	for _, arg := range e.options {
		id, isBoot := strings.CutPrefix(arg, "boot=UUID=")
		if isBoot && i.boot != nil && !strings.EqualFold(id, i.bootSuper.UUID) {
			i.fault(where, "its kernel argument is %s, and the file system of /boot has UUID %s", arg, i.bootSuper.UUID)
		}
	}
}

// rootUUID is read from the super block as soon as someone asks: the boot files come before it in the order of checks.
func (i *inspection) rootUUID() (string, bool) {
	if i.super.UUID == "" && i.rootfs != nil {
		i.readSuperblock()
	}
	return i.super.UUID, i.super.UUID != ""
}
