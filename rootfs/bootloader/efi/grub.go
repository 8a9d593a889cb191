package efi

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// GRUB is the content of an image that grub-mkimage made.
type GRUB struct {
	Prefix  string // the directory of its configuration, such as "/EFI/debian"
	Config  string // the script that it runs first, "" if there is none
	Modules []string
}

// Has reports whether the image has a module. Under Secure Boot no other one can be loaded.
func (g *GRUB) Has(module string) bool { return slices.Contains(g.Modules, module) }

// ErrNotGRUB is the error of a program without GRUB's modules.
var ErrNotGRUB = errors.New("it is not a GRUB: it has no section of modules")

// Types of an object among GRUB's modules.
const (
	objectModule = 0
	objectConfig = 2
	objectPrefix = 3
)

// readGRUB reads the list of modules of a GRUB for a 64-bit machine.
func (p *program) readGRUB() (*GRUB, error) {
	data := p.section("mods")
	const header = 24 // magic, padding, offset and size of the objects
	if len(data) < header || string(data[:4]) != "mimg" {
		return nil, ErrNotGRUB
	}
	at, end := binary.LittleEndian.Uint64(data[8:]), binary.LittleEndian.Uint64(data[16:])
	if at > end || end > uint64(len(data)) {
		return nil, fmt.Errorf("reading GRUB's modules: those from %d to %d in %d bytes", at, end, len(data))
	}
	grub := &GRUB{}
	for rest := data[at:end]; len(rest) > 0; {
		const header = 8
		if len(rest) < header {
			return nil, fmt.Errorf("reading GRUB's modules: %d bytes after the last one", len(rest))
		}
		kind, size := binary.LittleEndian.Uint32(rest), uint64(binary.LittleEndian.Uint32(rest[4:]))
		if size < header || size > uint64(len(rest)) {
			return nil, fmt.Errorf("reading GRUB's modules: one of %d bytes in %d", size, len(rest))
		}
		if err := grub.add(kind, rest[header:size]); err != nil {
			return nil, fmt.Errorf("reading GRUB's modules: %w", err)
		}
		rest = rest[size:]
	}
	return grub, nil
}

func (g *GRUB) add(kind uint32, object []byte) error {
	text, _, _ := bytes.Cut(object, []byte{0})
	switch kind {
	case objectConfig:
		g.Config = string(text)
	case objectPrefix:
		g.Prefix = string(text)
	case objectModule:
		module, err := elf.NewFile(bytes.NewReader(object))
		if err != nil {
			return err
		}
		defer module.Close()
		section := module.Section(".modname")
		if section == nil {
			return errors.New("one has no name")
		}
		content, err := section.Data()
		if err != nil {
			return err
		}
		name, _, _ := bytes.Cut(content, []byte{0})
		g.Modules = append(g.Modules, string(name))
	}
	return nil
}
