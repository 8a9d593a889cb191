package verify

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"installer/disk/fat"
	"installer/disk/fsinfo"
	"installer/install/size"
)

// espLimit is the largest boot loader or configuration that is read, in bytes.
const espLimit = 64 << 20

// efiApplication is the subsystem of an image that firmware may start (Microsoft PE format).
const efiApplication = 10

// efiLoader is the program that firmware starts from a disk of which it knows nothing, by
// architecture as Go names it (UEFI 2.10 section 3.5.1.1), with its machine type.
func efiLoader(arch string) (name string, machine uint16) {
	if arch == "arm64" {
		return "EFI/BOOT/BOOTAA64.EFI", pe.IMAGE_FILE_MACHINE_ARM64
	}
	return "EFI/BOOT/BOOTX64.EFI", pe.IMAGE_FILE_MACHINE_AMD64
}

func espPath(name string) string { return "ESP:" + path.Join("/", name) }

// checkESP checks the FAT file system as a structure.
func checkESP(f *findings, disk device, l *layout) {
	if l.esp == nil {
		f.notApplicable("there is none: the disk starts under BIOS only")
		return
	}
	r := disk.part(*l.esp)
	v, err := fat.Open(r, l.esp.Size)
	if err != nil {
		f.fault(l.esp.String(), "%v", err)
		return
	}
	l.fat = v
	if _, err := fsinfo.CheckClean(fsinfo.VFAT, r); err != nil {
		f.fault(l.esp.String(), "%v", err)
	}
	for _, problem := range v.Structure() {
		f.fault(l.esp.String(), "%s", problem)
	}
	v.Walk(func(where, what string) {
		if where == "" {
			f.fault(l.esp.String(), "%s", what)
			return
		}
		f.fault(espPath(where), "%s", what)
	})
	f.say("FAT32 with %s, not in use", size.Count(v.Files(), "file"))
}

// bootFilesCheck checks the files of the EFI system partition.
type bootFilesCheck struct {
	*findings
	*layout
}

// check checks the form of the files that the firmware and the boot loaders read from the partition.
func (c *bootFilesCheck) check() {
	if c.esp == nil {
		c.notApplicable("there is no EFI system partition: the disk starts under BIOS only")
		return
	}
	loader, machine := efiLoader(c.architecture())
	_, uefi := c.fat.Find(loader)
	if !uefi && !c.bootCode {
		c.faultWith("expected after --bootloader none", espPath(loader), "it is missing, and the boot sector has no code: nothing starts this disk")
	}
	programs, foreign, configs, entries := 0, 0, 0, 0
	for _, name := range c.fat.Names {
		f, ok := c.fat.Find(name)
		if !ok {
			continue
		}
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "efi/") && strings.HasSuffix(lower, ".efi"):
			programs++
			ours := strings.EqualFold(name, loader)
			if !ours {
				foreign++
			}
			c.checkProgram(f, machine, ours)
		case strings.HasPrefix(lower, "efi/") && path.Base(lower) == "grub.cfg":
			configs++
			c.checkGRUBConfig(f)
		case strings.HasPrefix(lower, "loader/entries/") && strings.HasSuffix(lower, ".conf"):
			entries++
			c.checkESPEntry(f)
		}
	}
	switch {
	case configs > 0 || entries > 0:
	case foreign > 0:
		c.note(c.esp.String(), "it has neither a configuration of GRUB nor boot entries: how its boot loader finds the system is not known")
	default:
		c.fault(c.esp.String(), "it has neither a configuration of GRUB nor boot entries: no boot loader finds the system")
	}
	c.say("EFI programs: %d, configurations of GRUB: %d, boot entries: %d", programs, configs, entries)
}

// checkProgram checks a program. Firmware of the disk's architecture must start the first one;
// others may be for other machines, or drivers.
func (c *bootFilesCheck) checkProgram(f *fat.File, machine uint16, first bool) {
	data, err := c.fat.ReadFile(f, espLimit)
	if err == nil {
		err = checkEFIProgram(data, machine)
	}
	switch {
	case err == nil:
	case !first && errors.Is(err, errOtherProgram):
		c.note(espPath(f.Path), "%v", err)
	default:
		c.fault(espPath(f.Path), "%v", err)
	}
}

// errOtherProgram is a program that the firmware of this architecture does not start.
var errOtherProgram = errors.New("it is a program")

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
		return fmt.Errorf("%w, but no 64-bit EFI application", errOtherProgram)
	case file.Machine != machine:
		return fmt.Errorf("%w for machine type %#x, and the system is for %#x", errOtherProgram, file.Machine, machine)
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

// checkGRUBConfig checks a configuration of GRUB on the EFI system partition. It may have others of
// its directory read: bootupd's has its file system in bootuuid.cfg.
func (c *bootFilesCheck) checkGRUBConfig(f *fat.File) {
	data, err := c.fat.ReadFile(f, configLimit)
	if err != nil {
		c.fault(espPath(f.Path), "%v", err)
		return
	}
	text := string(data)
	for _, name := range sourcedBy(text) {
		if other, ok := c.fat.Find(path.Join(path.Dir(f.Path), name)); ok {
			more, err := c.fat.ReadFile(other, configLimit)
			if err != nil {
				c.fault(espPath(other.Path), "%v", err)
			}
			text += "\n" + string(more)
		}
	}
	judgeGRUBConfig(c.findings, c.layout, espPath(f.Path), text)
}

// configLimit is the largest configuration that is read, in bytes.
const configLimit = 1 << 20

// sourcedBy returns the base names of the files that a configuration has GRUB run.
func sourcedBy(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && (words[0] == "source" || words[0] == "." || words[0] == "configfile") {
			names = append(names, path.Base(strings.Trim(words[1], `"';`)))
		}
	}
	return names
}

// ownConfig is in the first line of a configuration that an installation makes.
const ownConfig = "written once by the installer"

// judgeGRUBConfig checks that GRUB looks for the boot entries on the file system of this disk that
// has them: the root, or one of their own. A configuration that others made may find it in a way
// that does not show here.
func judgeGRUBConfig(f *findings, l *layout, where, text string) {
	known := l.entriesOn()
	if len(known) == 0 {
		return
	}
	what, want := "the root", strings.Join(known, " or ")
	if l.boot != nil {
		what = "/boot"
	}
	right := func(id string) bool { return slices.Contains(known, strings.ToLower(id)) }
	named, own := searchedFor(text), strings.Contains(text, ownConfig)
	found := slices.ContainsFunc(named, right)
	if own || !found {
		named = append(named, uuidPattern.FindAllString(text, -1)...)
		slices.Sort(named)
	}
	for _, id := range slices.Compact(named) {
		if !right(id) && (own || !found) {
			f.fault(where, "it names the file system %s, and %s is %s", id, what, want)
		}
	}
	switch {
	case found || slices.ContainsFunc(named, right):
	case own || len(named) > 0:
		f.fault(where, "it does not look for the file system of %s, %s", what, want)
	default:
		f.note(where, "it names no file system by its UUID: whether it finds the boot entries on %s is not known", what)
	}
}

// searchedFor returns the UUIDs that GRUB's command search looks for, however damaged they are; see
// "search" in GRUB's manual. The values of variables are not known.
func searchedFor(text string) []string {
	var ids []string
	for line := range strings.Lines(text) {
		command, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		if id, is := strings.CutPrefix(command, "set BOOT_UUID="); is { // bootupd's, which its search has as a variable
			ids = append(ids, strings.Trim(id, `"'`))
			continue
		}
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

// checkESPEntry checks a boot entry that a loader reads from this partition: its files are here,
// too.
func (c *bootFilesCheck) checkESPEntry(f *fat.File) {
	if !entryName.MatchString(path.Base(f.Path)) {
		c.note(espPath(f.Path), "it is not a boot entry that ostree made, and was not checked")
		return
	}
	text, err := c.fat.ReadFile(f, configLimit)
	if err != nil {
		c.fault(espPath(f.Path), "%v", err)
		return
	}
	entry, problems := parseEntry(path.Base(f.Path), string(text))
	for _, problem := range problems {
		c.fault(espPath(f.Path), "%s", problem)
	}
	for _, name := range entry.files() {
		if _, ok := c.fat.Find(name); !ok {
			c.fault(espPath(f.Path), "it names %s, which is not on the EFI system partition", name)
		}
	}
	checkRootArgument(c.findings, c.layout, espPath(f.Path), entry)
}

// checkRootArgument checks that the kernel is given the root that is on this disk.
func checkRootArgument(f *findings, l *layout, where string, e *bootEntry) {
	id := l.super.UUID
	if id == "" {
		return
	}
	checkBootArgument(f, l, where, e)
	for _, arg := range e.options {
		value, isRoot := strings.CutPrefix(arg, "root=")
		if !isRoot {
			continue
		}
		kind, _, _ := strings.Cut(value, "=")
		switch {
		case strings.EqualFold(value, "UUID="+id):
		case slices.Contains([]string{"LABEL", "PARTUUID", "PARTLABEL"}, kind), strings.HasPrefix(value, "/dev/"), value == "gpt-auto":
			f.note(where, "its kernel argument is root=%s: whether that is the root file system is not known", value)
		default:
			f.fault(where, "its kernel argument is root=%s, and the root file system has UUID %s", value, id)
		}
		return
	}
	if l.arch != "" && !slices.Contains(e.options, "systemd.gpt_auto=0") {
		f.note(where, "it has no kernel argument root=: the initramfs finds the root by its partition type")
		return
	}
	f.fault(where, "it has no kernel argument root=")
}

// checkBootArgument checks that a kernel argument for /boot, where there is one, names the /boot of
// this disk.
func checkBootArgument(f *findings, l *layout, where string, e *bootEntry) {
	for _, arg := range e.options {
		id, isBoot := strings.CutPrefix(arg, "boot=UUID=")
		if isBoot && l.boot != nil && !strings.EqualFold(id, l.bootSuper.UUID) {
			f.fault(where, "its kernel argument is %s, and the file system of /boot has UUID %s", arg, l.bootSuper.UUID)
		}
	}
}
