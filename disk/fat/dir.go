package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf16"
)

// Directory entries of FAT (Microsoft FAT specification, sections 6 and 7).
const (
	entrySize  = 32
	deleted    = 0xe5
	attrLabel  = 0x08
	attrDir    = 0x10
	attrLong   = 0x0f
	longLast   = 0x40
	depthLimit = 32
)

// File is a file in a volume.
type File struct {
	Path  string // as its directories spell it
	Size  int64
	chain []uint32
}

// entry is a directory entry as found.
type entry struct {
	name  string
	attr  byte
	first uint32
	size  int64
}

// Walk reads the whole tree. Problems are given to report with the path that they are about; the
// entries of a damaged directory are left out.
func (v *Volume) Walk(report func(where, what string)) {
	v.walkDir("", v.rootDir, 0, report)
	if n := v.lost(); n > 0 {
		report("", fmt.Sprintf("%d clusters are marked as taken and belong to no file", n))
	}
}

func (v *Volume) walkDir(at string, first uint32, depth int, report func(where, what string)) {
	if depth > depthLimit {
		report(at, "directories are nested too deeply")
		return
	}
	chain, err := v.chain(first)
	if err != nil {
		report(at, err.Error())
	}
	entries, err := v.readDir(chain)
	if err != nil {
		report(at, err.Error())
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if e.name == "." || e.name == ".." || e.attr&attrLabel != 0 {
			continue
		}
		name := path.Join(at, e.name)
		if key := strings.ToLower(e.name); seen[key] {
			report(name, "the name occurs twice")
		} else {
			seen[key] = true
		}
		v.Names = append(v.Names, name)
		if e.attr&attrDir != 0 {
			v.walkDir(name, e.first, depth+1, report)
			continue
		}
		v.addFile(name, e, report)
	}
}

func (v *Volume) addFile(name string, e entry, report func(where, what string)) {
	f := &File{Path: name, Size: e.size}
	if e.size > 0 || e.first != 0 {
		chain, err := v.chain(e.first)
		if err != nil {
			report(name, err.Error())
			return
		}
		f.chain = chain
	}
	if want := (e.size + v.cluster - 1) / v.cluster; int64(len(f.chain)) != want {
		report(name, fmt.Sprintf("%d bytes take %d clusters, and its chain has %d", e.size, want, len(f.chain)))
		return
	}
	v.files[strings.ToLower(name)] = f
}

// readDir decodes the entries of a directory up to the one that ends it.
func (v *Volume) readDir(chain []uint32) ([]entry, error) {
	var entries []entry
	var long longName
	buf := make([]byte, v.cluster)
	for _, c := range chain {
		if err := v.readCluster(c, buf); err != nil {
			return entries, err
		}
		for at := 0; at < len(buf); at += entrySize {
			b := buf[at : at+entrySize]
			switch {
			case b[0] == 0:
				return entries, long.unfinished()
			case b[0] == deleted:
				long = longName{}
			case b[11]&0x3f == attrLong:
				if err := long.add(b); err != nil {
					return entries, err
				}
			default:
				e, err := decodeEntry(b, long)
				if err != nil {
					return entries, err
				}
				entries, long = append(entries, e), longName{}
			}
		}
	}
	return entries, long.unfinished()
}

func decodeEntry(b []byte, long longName) (entry, error) {
	le := binary.LittleEndian
	e := entry{attr: b[11], first: uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])), size: int64(le.Uint32(b[28:]))}
	if e.attr&0xc0 != 0 {
		return e, fmt.Errorf("the entry %q has attributes %#02x", b[:11], e.attr)
	}
	if len(long.units) == 0 {
		e.name = shortName(b)
		return e, nil
	}
	if long.expect != 0 || long.sum != shortSum(b[:11]) {
		return e, fmt.Errorf("the long name of the entry %q does not belong to it", b[:11])
	}
	e.name = long.text()
	return e, nil
}

// shortName decodes a name of 8 and 3 characters; the bits of byte 12 say which part is in lower
// case.
func shortName(b []byte) string {
	base, ext := strings.TrimRight(string(b[:8]), " "), strings.TrimRight(string(b[8:11]), " ")
	if b[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if b[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		base += "." + ext
	}
	return base
}

// shortSum is the checksum that ties a long name to its short one.
func shortSum(name []byte) byte {
	var sum byte
	for _, c := range name {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longName gathers the parts of a long name, which stand before the entry, the last part first.
type longName struct {
	units  []uint16
	expect byte // number of the part that must come next; 0 when complete
	sum    byte
}

func (l *longName) add(b []byte) error {
	number := b[0]
	if number&longLast != 0 {
		*l = longName{expect: number &^ longLast, sum: b[13]}
		number &^= longLast
	}
	if number == 0 || number > 20 || number != l.expect || b[13] != l.sum {
		return fmt.Errorf("a part of a long name is out of order")
	}
	var part []uint16
	for _, span := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for at := span[0]; at < span[1]; at += 2 {
			part = append(part, binary.LittleEndian.Uint16(b[at:]))
		}
	}
	l.units, l.expect = append(part, l.units...), number-1
	return nil
}

func (l *longName) unfinished() error {
	if len(l.units) > 0 {
		return fmt.Errorf("a long name belongs to no entry")
	}
	return nil
}

func (l *longName) text() string {
	units := l.units
	for n, u := range units {
		if u == 0 {
			units = units[:n]
			break
		}
	}
	return string(utf16.Decode(units))
}

// Files returns the number of files.
func (v *Volume) Files() int { return len(v.files) }

// Find looks a file up, without regard to case.
func (v *Volume) Find(name string) (*File, bool) {
	f, ok := v.files[strings.ToLower(strings.Trim(name, "/"))]
	return f, ok
}

// Reader returns the content of a file from its beginning.
func (v *Volume) Reader(f *File) io.Reader {
	parts := make([]io.Reader, 0, len(f.chain))
	left := f.Size
	for _, c := range f.chain {
		n := min(left, v.cluster)
		parts = append(parts, io.NewSectionReader(v.r, v.dataStart+(int64(c)-2)*v.cluster, n))
		left -= n
	}
	return io.MultiReader(parts...)
}

// ReadFile reads a whole file of at most limit bytes.
func (v *Volume) ReadFile(f *File, limit int64) ([]byte, error) {
	if f.Size > limit {
		return nil, fmt.Errorf("it has %d bytes, more than anything sensible", f.Size)
	}
	b := make([]byte, f.Size)
	_, err := io.ReadFull(v.Reader(f), b)
	return b, err
}
