package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// typesFile has the types of the running kernel, in the format BTF of linux/btf.h.
const typesFile = "/sys/kernel/btf/vmlinux"

// types are the types of the running kernel. They are some 100,000, of which the structures of the
// layout are found by their names: a type is decoded when it is needed.
type types struct {
	text    []byte            // the section of types
	names   []byte            // the section of names
	at      []uint32          // where each type begins in text, by its id
	structs map[string]uint32 // the ids of the structures, see structures
	err     error             // the first one, see field
}

// Kinds of types, BTF_KIND_* of linux/btf.h.
const (
	kindInt = iota + 1
	kindPointer
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindForward
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunction
	kindPrototype
	kindVariable
	kindSection
	kindFloat
	kindDeclarationTag
	kindTypeTag
	kindEnum64
	kinds
)

// Sizes of struct btf_type and of its members, which kinds of types end with: so many bytes, and so
// many for each entry.
const typeSize, memberSize = 12, 12

var (
	tailBytes  = [kinds]uint32{kindInt: 4, kindArray: 12, kindVariable: 4, kindDeclarationTag: 4}
	entryBytes = [kinds]uint32{kindStruct: memberSize, kindUnion: memberSize, kindEnum: 8, kindPrototype: 8, kindSection: 12, kindEnum64: 12}
)

var errNoBTF = errors.New("the BTF of the kernel cannot be understood")

// openTypes maps the kernel's types into memory, or reads them where that is not possible: before
// Linux 6.16. close must be called when they are not needed any more.
func openTypes() (_ *types, close func(), err error) {
	file, err := os.Open(typesFile)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	close = func() {}
	raw, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err == nil {
		close = func() { unix.Munmap(raw) }
	} else if raw, err = os.ReadFile(typesFile); err != nil {
		return nil, nil, err
	}
	t, err := parseTypes(raw)
	if err != nil {
		close()
		return nil, nil, err
	}
	return t, close, nil
}

// parseTypes reads the header, and finds each type.
func parseTypes(raw []byte) (*types, error) {
	const magic, header = 0xEB9F, 24
	ne := binary.NativeEndian
	if len(raw) < header || ne.Uint16(raw) != magic {
		return nil, errNoBTF
	}
	length := uint64(ne.Uint32(raw[4:]))
	section := func(at int) []byte {
		begin := length + uint64(ne.Uint32(raw[at:]))
		end := begin + uint64(ne.Uint32(raw[at+4:]))
		if end > uint64(len(raw)) {
			return nil
		}
		return raw[begin:end]
	}
	t := &types{text: section(8), names: section(16), structs: map[string]uint32{}}
	t.at = make([]uint32, 1, len(t.text)/24+1) // type 0 is void
	wanted := map[string]bool{}
	for _, name := range structures {
		wanted[name] = true
	}
	for at := uint32(0); uint64(at)+typeSize <= uint64(len(t.text)); {
		info := ne.Uint32(t.text[at+4:])
		kind, entries := info>>24&0x1f, info&0xffff
		if kind == 0 || kind >= kinds {
			return nil, fmt.Errorf("%w: kind %d of type %d", errNoBTF, kind, len(t.at))
		}
		if kind == kindStruct {
			if name := t.name(ne.Uint32(t.text[at:])); wanted[string(name)] {
				t.structs[string(name)] = uint32(len(t.at))
			}
		}
		t.at = append(t.at, at)
		at += typeSize + tailBytes[kind] + entries*entryBytes[kind]
	}
	if len(t.structs) == 0 {
		return nil, errNoBTF
	}
	return t, nil
}

func (t *types) name(at uint32) []byte {
	if uint64(at) >= uint64(len(t.names)) {
		return nil
	}
	name, _, _ := bytes.Cut(t.names[at:], []byte{0})
	return name
}

// number returns the n-th 32-bit number of a type, 0 beyond the end.
func (t *types) number(id uint32, n int) uint32 {
	if uint64(id) >= uint64(len(t.at)) || id == 0 {
		return 0
	}
	at := int(t.at[id]) + 4*n
	if at+4 > len(t.text) {
		return 0
	}
	return binary.NativeEndian.Uint32(t.text[at:])
}

func (t *types) kind(id uint32) uint32 { return t.number(id, 1) >> 24 & 0x1f }

// mostAliases bounds a chain of types that stand for others.
const mostAliases = 64

// plain returns the type that typedefs and qualifiers stand for.
func (t *types) plain(id uint32) uint32 {
	for range mostAliases {
		switch t.kind(id) {
		case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
			id = t.number(id, 2)
		default:
			return id
		}
	}
	return 0
}

// size returns the size of a type in bytes.
func (t *types) size(id uint32) int {
	id = t.plain(id)
	switch t.kind(id) {
	case kindPointer:
		return 8
	case kindArray:
		return int(t.number(id, 5)) * t.size(t.number(id, 3))
	case kindInt, kindStruct, kindUnion, kindEnum, kindFloat, kindEnum64:
		return int(t.number(id, 2))
	}
	return 0
}

// member finds a field of a structure or union, also in those in it that have no name; the type is
// 0 if there is none.
func (t *types) member(id uint32, name string) (offset uint64, found uint32) {
	id = t.plain(id)
	if kind := t.kind(id); kind != kindStruct && kind != kindUnion {
		return 0, 0
	}
	info := t.number(id, 1)
	for n := range int(info & 0xffff) {
		first := (typeSize + n*memberSize) / 4
		own, kind, bits := t.name(t.number(id, first)), t.number(id, first+1), t.number(id, first+2)
		if info>>31 != 0 { // the size of a bit field is there too
			bits &= 0xffffff
		}
		if string(own) == name {
			return uint64(bits / 8), kind
		}
		if len(own) == 0 {
			if at, found := t.member(kind, name); found != 0 {
				return uint64(bits/8) + at, found
			}
		}
	}
	return 0, 0
}

// field returns a field, by its name in a structure, the name of a field in that, and so on. The
// offset is from the start of the structure.
func (t *types) field(structure string, names ...string) field {
	if t.err != nil {
		return field{}
	}
	kind, ok := t.structs[structure]
	if !ok {
		t.err = fmt.Errorf("the kernel has no struct %s", structure)
		return field{}
	}
	var f field
	for _, name := range names {
		at, next := t.member(kind, name)
		if next == 0 {
			t.err = fmt.Errorf("the kernel's struct %s has no field %v", structure, names)
			return field{}
		}
		f.offset, kind = f.offset+at, next
	}
	f.pointer = t.kind(t.plain(kind)) == kindPointer
	f.size = t.size(kind)
	return f
}

// has reports whether a structure has a field.
func (t *types) has(structure, name string) bool {
	_, kind := t.member(t.structs[structure], name)
	return kind != 0
}

// structSize returns the size of a structure.
func (t *types) structSize(structure string) int { return t.size(t.structs[structure]) }
