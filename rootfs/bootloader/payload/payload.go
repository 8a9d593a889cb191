package payload

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"installer/rootfs/bootloader/efi"
)

// Source is a place of signed boot loaders.
type Source string

// The sources, in the order in which they are looked at.
const (
	Components Source = "bootupd's components in /usr/lib/efi"
	Updates    Source = "bootupd's files in /usr/lib/bootupd/updates"
	Packages   Source = "packages of signed boot loaders"
	OSTreeBoot Source = "ostree's files in /usr/lib/ostree-boot/efi"
)

// Loader is the program that shim starts.
type Loader string

// The loaders that distributions sign.
const (
	GRUB        Loader = "GRUB"
	SystemdBoot Loader = "systemd-boot"
)

// File is one file of a boot loader.
type File struct {
	From string // in the image
	To   string // on the EFI system partition, such as "EFI/BOOT/BOOTX64.EFI"
}

// Tree is an image, or an EFI system partition.
type Tree struct {
	fs.FS
	// Program returns the facts of a file, as [efi.Look] finds them. The error is of reading.
	Program func(name string) (efi.Program, error)
}

// TreeOf returns a tree whose programs are read when they are asked for.
func TreeOf(tree fs.FS) Tree {
	return Tree{tree, func(name string) (efi.Program, error) {
		file, err := tree.Open(name)
		if err != nil {
			return efi.Program{}, err
		}
		defer file.Close()
		return efi.Look(file)
	}}
}

// Payload is a set of signed boot loaders.
type Payload struct {
	Source Source
	Loader Loader
	Vendor string    // name of the distribution's directory on the EFI system partition
	Files  []File    // sorted by To, in lower case
	GRUB   *efi.GRUB // nil with another loader

	machine machine
}

// Passed is a source that was not taken, and why. The reason is [ErrAbsent] where nothing of it is
// in the image.
type Passed struct {
	Source Source
	Reason error
}

// ErrAbsent is the reason of a source of which the image has nothing.
var ErrAbsent = errors.New("the image has none")

// Find returns the first complete set of signed loaders in an image. The error is a [*NoneError] if
// there is none. Signatures are not checked: see [Payload.Chain].
func Find(tree Tree, arch string, loader Loader) (*Payload, error) {
	m, err := machineOf(arch)
	if err != nil {
		return nil, err
	}
	var passed []Passed
	for _, source := range []struct {
		name Source
		find func(Tree, machine, Loader) (*Payload, error)
	}{
		{Components, components},
		{Updates, directory("usr/lib/bootupd/updates")},
		{Packages, packages},
		{OSTreeBoot, directory("usr/lib/ostree-boot/efi")},
	} {
		found, err := source.find(tree, m, loader)
		if err == nil {
			found.Source, found.Loader, found.machine = source.name, loader, m
			err = found.finish(tree)
		}
		if err == nil {
			return found, nil
		}
		passed = append(passed, Passed{source.name, err})
	}
	return nil, &NoneError{Loader: loader, Passed: passed, packages: m.wanted(loader)}
}

// Installed returns the signed loaders on an EFI system partition with the files that are named, on
// which From and To are equal. The error is a [*MissingError] where a file is missing.
func Installed(esp Tree, names []string, arch string, loader Loader) (*Payload, error) {
	m, err := machineOf(arch)
	if err != nil {
		return nil, err
	}
	p := &Payload{Loader: loader, machine: m}
	for _, name := range names {
		if len(name) > len("EFI/") && strings.EqualFold(name[:len("EFI/")], "EFI/") {
			p.Files = append(p.Files, File{name, name})
		}
	}
	if loader == GRUB {
		err = p.complete(m, loader)
	} else {
		err = p.has(m, loader, "BOOT/"+m.removable(), "BOOT/"+m.grub())
	}
	if err != nil {
		return nil, err
	}
	return p, p.finish(esp)
}

// NoneError reports an image without a complete set of signed boot loaders.
type NoneError struct {
	Loader   Loader
	Passed   []Passed
	packages map[string][]string
}

func (e *NoneError) Error() string {
	message, found := fmt.Sprintf("the image has no signed %s with a shim", e.Loader), false
	for _, p := range e.Passed {
		if !errors.Is(p.Reason, ErrAbsent) {
			message, found = message+fmt.Sprintf("; %s: %v", p.Source, p.Reason), true
		}
	}
	if found {
		return message
	}
	return message + ": add " + byDistribution(e.packages)
}

// MissingError reports a file that a source lacks.
type MissingError struct {
	Path     string              // in the image, or on the EFI system partition below EFI
	Packages map[string][]string // that bring it, by distribution
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("it lacks %s, which is in %s", e.Path, byDistribution(e.Packages))
}

// byDistribution names packages: "packages a, b (Debian) or c (Fedora, CentOS)".
func byDistribution(packages map[string][]string) string {
	var alternatives []string
	word := "package "
	for _, distribution := range []string{debian, fedora} {
		if names := packages[distribution]; len(names) > 0 {
			alternatives = append(alternatives, fmt.Sprintf("%s (%s)", strings.Join(names, ", "), distribution))
		}
		if len(packages[distribution]) > 1 {
			word = "packages "
		}
	}
	return word + strings.Join(alternatives, " or ")
}

// LayoutError reports files that are all there, and of which no one system can be made.
type LayoutError struct{ Reason string }

func (e *LayoutError) Error() string { return e.Reason }

// finish sorts the files by their names on the partition, where letters have no case, and reads
// GRUB's own prefix: its configuration has to be there.
func (p *Payload) finish(tree Tree) error {
	slices.SortFunc(p.Files, func(a, b File) int { return strings.Compare(strings.ToLower(a.To), strings.ToLower(b.To)) })
	for n, f := range p.Files[1:] {
		if strings.EqualFold(f.To, p.Files[n].To) {
			return &LayoutError{fmt.Sprintf("%s and %s are one file on the EFI system partition", p.Files[n].From, f.From)}
		}
	}
	if p.Loader != GRUB {
		return nil
	}
	var err error
	if p.GRUB, err = grubOf(tree, p.from(p.machine.grub())); err != nil {
		return err
	}
	if want := "/EFI/" + p.Vendor; !strings.EqualFold(p.GRUB.Prefix, want) {
		return &LayoutError{fmt.Sprintf("its GRUB reads its configuration in %s, and shim is in %s", p.GRUB.Prefix, want)}
	}
	return nil
}

// from returns the path in the image of the file that has a name on the partition, with the one in
// the vendor's directory before others. It returns "" if there is none.
func (p *Payload) from(name string) string {
	for _, directory := range []string{p.Vendor, "BOOT"} {
		if f, ok := find(p.Files, path.Join("EFI", directory, name)); ok {
			return f.From
		}
	}
	return ""
}

// find looks for a file on the partition, where letters have no case.
func find(files []File, to string) (File, bool) {
	n := slices.IndexFunc(files, func(f File) bool { return strings.EqualFold(f.To, to) })
	if n < 0 {
		return File{}, false
	}
	return files[n], true
}

// Chain returns the programs to be checked: those of the payload, and the kernels of the image that
// are named.
func (p *Payload) Chain(tree Tree, firmware efi.Trust, kernels ...string) (efi.Chain, error) {
	chain := efi.Chain{Firmware: firmware, Machine: p.machine.pe}
	var second efi.Program // shim in the vendor's directory
	for _, f := range p.Files {
		name, ok := p.machine.role(path.Base(f.To), p.Loader)
		if !ok {
			continue
		}
		program, err := link(tree, name, f.From)
		switch {
		case err != nil:
			return chain, err
		case name != shim:
			chain.Loaders = append(chain.Loaders, program)
		case strings.EqualFold(path.Base(path.Dir(f.To)), "BOOT"):
			chain.Shim = program
		default:
			second = program
		}
	}
	if a, b := chain.Shim.Image, second.Image; a != nil && b != nil && a.Sum != b.Sum {
		return chain, &LayoutError{fmt.Sprintf("%s and %s are two different shims", chain.Shim.Path, second.Path)}
	}
	for _, kernel := range kernels {
		program, err := link(tree, "the kernel", kernel)
		if err != nil {
			return chain, err
		}
		chain.Kernels = append(chain.Kernels, program)
	}
	return chain, nil
}

// link returns a program with its names in messages.
func link(tree Tree, name, from string) (efi.Program, error) {
	p, err := tree.Program(from)
	if err != nil {
		return p, fmt.Errorf("reading /%s: %w", from, err)
	}
	p.Name, p.Path = name, "/"+from
	return p, nil
}

// grubOf returns the content of a GRUB.
func grubOf(tree Tree, name string) (*efi.GRUB, error) {
	p, err := link(tree, string(GRUB), name)
	if err == nil {
		err = p.Err
	}
	if err != nil {
		return nil, &efi.LinkError{Program: p, Err: err}
	}
	grub, err := p.Image.GRUB()
	if err != nil {
		return nil, &efi.LinkError{Program: p, Err: err}
	}
	return grub, nil
}

// IsProgram reports whether a file of an image can be a program of a payload, by its name.
func IsProgram(name string) bool {
	base := strings.ToLower(path.Base(name))
	return strings.HasSuffix(base, ".efi") || strings.Contains(base, ".efi.signed")
}
