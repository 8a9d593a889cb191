package ostree

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// DirMeta is a directory's owner, mode and extended attributes.
type DirMeta struct {
	UID, GID uint32
	Mode     uint32 // full st_mode of a directory
	Xattrs   []Xattr
}

// Encode returns the object's bytes, attributes sorted and empty ones dropped.
func (m DirMeta) Encode() ([]byte, error) {
	if err := checkOwner(m.UID, m.GID); err != nil {
		return nil, err
	}
	if err := checkDirMode(m.Mode); err != nil {
		return nil, err
	}
	xattrs, err := normalizeXattrs(m.Xattrs)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint32(b, m.UID)
	b = binary.BigEndian.AppendUint32(b, m.GID)
	b = binary.BigEndian.AppendUint32(b, m.Mode)
	return appendXattrs(b, xattrs), nil
}

func checkDirMode(mode uint32) error {
	if mode&modeTypeMask != modeDirectory || mode&^(modeTypeMask|modePermMask) != 0 {
		return formatErrorf("mode %#o is not a directory's", mode)
	}
	return nil
}

// DecodeDirMeta reads the bytes of a dirmeta object. Nothing of data is kept.
func DecodeDirMeta(data []byte) (DirMeta, error) {
	p, err := splitTuple(data, typeDirMeta)
	if err != nil {
		return DirMeta{}, err
	}
	m := DirMeta{
		UID:  binary.BigEndian.Uint32(p[0]),
		GID:  binary.BigEndian.Uint32(p[1]),
		Mode: binary.BigEndian.Uint32(p[2]),
	}
	if m.Xattrs, err = decodeXattrs(p[3]); err != nil {
		return DirMeta{}, err
	}
	if err := checkOwner(m.UID, m.GID); err != nil {
		return DirMeta{}, err
	}
	return m, checkDirMode(m.Mode)
}

// FileEntry names a file object in a directory.
type FileEntry struct {
	Name     string
	Checksum Checksum
}

// DirEntry names a subdirectory: its dirtree and its dirmeta.
type DirEntry struct {
	Name       string
	Tree, Meta Checksum
}

// DirTree lists a directory: files and symbolic links, and subdirectories.
type DirTree struct {
	Files []FileEntry
	Dirs  []DirEntry
}

// Encode returns the object's bytes, entries sorted by name. A name that is repeated, or that the
// format does not allow, is an error.
func (t DirTree) Encode() ([]byte, error) {
	t = t.sorted()
	if err := t.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 64+len(t.Files)*64+len(t.Dirs)*96)
	ends := make([]int, 0, max(len(t.Files), len(t.Dirs)))
	for _, f := range t.Files {
		start := len(b)
		b = append(append(b, f.Name...), 0)
		nameEnd := len(b) - start
		b = append(b, f.Checksum[:]...)
		b = appendOffsets(b, start, []int{nameEnd})
		ends = append(ends, len(b))
	}
	b = appendOffsets(b, 0, ends)
	filesEnd := len(b)
	ends = ends[:0]
	for _, d := range t.Dirs {
		start := len(b)
		b = append(append(b, d.Name...), 0)
		nameEnd := len(b) - start
		b = append(b, d.Tree[:]...)
		treeEnd := len(b) - start
		b = append(b, d.Meta[:]...)
		b = appendOffsets(b, start, []int{treeEnd, nameEnd})
		ends = append(ends, len(b)-filesEnd)
	}
	b = appendOffsets(b, filesEnd, ends)
	return appendOffsets(b, 0, []int{filesEnd}), nil
}

// sorted returns t with entries in byte order, copying only if they are not.
func (t DirTree) sorted() DirTree {
	byFile := func(i, j int) bool { return t.Files[i].Name < t.Files[j].Name }
	if !sort.SliceIsSorted(t.Files, byFile) {
		t.Files = slices.Clone(t.Files)
		sort.SliceStable(t.Files, byFile)
	}
	byDir := func(i, j int) bool { return t.Dirs[i].Name < t.Dirs[j].Name }
	if !sort.SliceIsSorted(t.Dirs, byDir) {
		t.Dirs = slices.Clone(t.Dirs)
		sort.SliceStable(t.Dirs, byDir)
	}
	return t
}

// check verifies names, their order, and that none stands in both lists.
func (t DirTree) check() error {
	for i, f := range t.Files {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if i > 0 && t.Files[i-1].Name >= f.Name {
			return formatErrorf("name %q is out of order or repeated", f.Name)
		}
	}
	next := 0
	for i, d := range t.Dirs {
		if err := checkName(d.Name); err != nil {
			return err
		}
		if i > 0 && t.Dirs[i-1].Name >= d.Name {
			return formatErrorf("name %q is out of order or repeated", d.Name)
		}
		for next < len(t.Files) && t.Files[next].Name < d.Name {
			next++
		}
		if next < len(t.Files) && t.Files[next].Name == d.Name {
			return formatErrorf("name %q is both a file and a directory", d.Name)
		}
	}
	return nil
}

// checkName refuses a name that cannot be, or must not be, one component of a path.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || !utf8.ValidString(name) {
		return formatErrorf("file name %q is empty, a dot name, not UTF-8, or holds a slash or NUL", name)
	}
	return nil
}

// DecodeDirTree reads the bytes of a dirtree object. Nothing of data is kept.
func DecodeDirTree(data []byte) (DirTree, error) {
	var t DirTree
	lists, err := splitTuple(data, typeDirTree)
	if err != nil {
		return t, err
	}
	files, err := splitArray(lists[0], typeFileEnt)
	if err != nil {
		return t, err
	}
	dirs, err := splitArray(lists[1], typeDirEnt)
	if err != nil {
		return t, err
	}
	t.Files, t.Dirs = make([]FileEntry, len(files)), make([]DirEntry, len(dirs))
	for i, e := range files {
		if err := t.Files[i].decode(e); err != nil {
			return DirTree{}, err
		}
	}
	for i, e := range dirs {
		if err := t.Dirs[i].decode(e); err != nil {
			return DirTree{}, err
		}
	}
	return t, t.check()
}

func (f *FileEntry) decode(data []byte) error {
	p, err := splitTuple(data, typeFileEnt)
	if err != nil {
		return err
	}
	if f.Name, err = decodeString(p[0]); err != nil {
		return err
	}
	f.Checksum, err = checksumFromBytes(p[1])
	return err
}

func (d *DirEntry) decode(data []byte) error {
	p, err := splitTuple(data, typeDirEnt)
	if err != nil {
		return err
	}
	if d.Name, err = decodeString(p[0]); err != nil {
		return err
	}
	if d.Tree, err = checksumFromBytes(p[1]); err != nil {
		return err
	}
	d.Meta, err = checksumFromBytes(p[2])
	return err
}
