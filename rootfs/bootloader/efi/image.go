package efi

import (
	"bytes"
	"crypto"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// application is the subsystem of a program that firmware starts, Microsoft PE format section
// "Windows Subsystem".
const application = 10

// program is an EFI program in memory.
type program struct {
	data     []byte
	file     *pe.File
	headers  uint32 // size of all headers
	checksum uint32 // offset of the field CheckSum
	entry    uint32 // offset of the certificate table's entry in the data directory, 0 without one
	table    pe.DataDirectory
}

// parse reads the headers of an EFI program. The result keeps data.
func parse(data []byte) (*program, error) {
	// Without the first header pe.NewFile reads an object file, which has fewer headers.
	if !bytes.HasPrefix(data, []byte("MZ")) || len(data) > math.MaxInt32 {
		return nil, errors.New("not an EFI program: it does not begin with MZ, or is too large")
	}
	file, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("not an EFI program: %w", err)
	}
	// pe.NewFile has read the header at this offset.
	optional := binary.LittleEndian.Uint32(data[0x3c:]) + 4 + uint32(binary.Size(pe.FileHeader{}))
	p := &program{data: data, file: file, checksum: optional + 64}
	var directories []pe.DataDirectory
	var count, subsystem uint32
	switch h := file.OptionalHeader.(type) {
	case *pe.OptionalHeader64:
		p.headers, count, subsystem, p.entry = h.SizeOfHeaders, h.NumberOfRvaAndSizes, uint32(h.Subsystem), optional+112
		directories = h.DataDirectory[:]
	case *pe.OptionalHeader32:
		p.headers, count, subsystem, p.entry = h.SizeOfHeaders, h.NumberOfRvaAndSizes, uint32(h.Subsystem), optional+96
		directories = h.DataDirectory[:]
	default:
		return nil, errors.New("not an EFI program: it has no optional header")
	}
	if subsystem != application {
		return nil, fmt.Errorf("a PE program of subsystem %d instead of %d (EFI application)", subsystem, application)
	}
	if count <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY {
		p.entry = 0
		return p, p.checkBounds()
	}
	p.table = directories[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	p.entry += pe.IMAGE_DIRECTORY_ENTRY_SECURITY * uint32(binary.Size(pe.DataDirectory{}))
	return p, p.checkBounds()
}

// checkBounds checks that all bytes of the digest are inside of the file. Firmware takes the
// certificate table for the end of the file, so that one elsewhere has no certain digest.
func (p *program) checkBounds() error {
	size := uint64(len(p.data))
	if uint64(p.headers) > size || p.headers < p.checksum+4 || p.entry != 0 && p.headers < p.entry+8 {
		return fmt.Errorf("a damaged EFI program: headers of %d bytes in a file of %d", p.headers, size)
	}
	if p.table.Size != 0 && uint64(p.table.VirtualAddress)+uint64(p.table.Size) != size {
		return fmt.Errorf("a damaged EFI program: %d bytes of signatures at %d do not end at the end of the file, %d",
			p.table.Size, p.table.VirtualAddress, size)
	}
	for _, s := range p.file.Sections {
		if s.Size != 0 && uint64(s.Offset)+uint64(s.Size) > size-uint64(p.table.Size) {
			return fmt.Errorf("a damaged EFI program: section %s ends at %d, and the program at %d",
				s.Name, uint64(s.Offset)+uint64(s.Size), size-uint64(p.table.Size))
		}
	}
	return nil
}

// digest returns the Authenticode digest, which leaves the checksum and the signatures out.
// Sections count in the order of the file, and the end of the file begins after as many bytes as
// were counted, as firmware has it.
func (p *program) digest(hash crypto.Hash) []byte {
	h := hash.New()
	h.Write(p.data[:p.checksum])
	if p.entry == 0 {
		h.Write(p.data[p.checksum+4 : p.headers])
	} else {
		h.Write(p.data[p.checksum+4 : p.entry])
		h.Write(p.data[p.entry+8 : p.headers])
	}
	sections := slices.Clone(p.file.Sections)
	slices.SortStableFunc(sections, func(a, b *pe.Section) int { return int(int64(a.Offset) - int64(b.Offset)) })
	counted := uint64(p.headers)
	for _, s := range sections {
		if s.Size == 0 {
			continue // and its offset may be anything
		}
		h.Write(p.data[s.Offset : uint64(s.Offset)+uint64(s.Size)])
		counted += uint64(s.Size)
	}
	if end := uint64(len(p.data)) - uint64(p.table.Size); counted < end {
		h.Write(p.data[counted:end])
	}
	return h.Sum(nil)
}

// section returns the content of a section, nil if there is none of that name. The last bytes of a
// section in the file may be padding that is not in memory.
func (p *program) section(name string) []byte {
	for _, s := range p.file.Sections {
		if s.Name == name && s.Size != 0 {
			content := p.data[s.Offset : uint64(s.Offset)+uint64(s.Size)]
			if s.VirtualSize != 0 && uint64(s.VirtualSize) < uint64(len(content)) {
				content = content[:s.VirtualSize]
			}
			return content
		}
	}
	return nil
}
