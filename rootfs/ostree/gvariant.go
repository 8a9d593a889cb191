package ostree

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// The GVariant serialisation: types, framing offsets and normal form, as far as the repository
// format needs them. Numbers inside are left as bytes, because the format stores its own integers
// big-endian whatever the host.

// maxDepth bounds the nesting of types and variants that a decoder follows.
const maxDepth = 64

// vtype is a parsed type, with the properties that a splitter needs.
type vtype struct {
	sig     string
	kind    byte // the first character of sig
	align   int
	fixed   int      // serialized size, 0 when it varies
	members []*vtype // of a tuple or dict entry
	elem    *vtype   // of an array or maybe
}

var (
	typeXattr   = mustType("(ayay)")
	typeDirMeta = mustType("(uuua(ayay))")
	typeFileEnt = mustType("(say)")
	typeDirEnt  = mustType("(sayay)")
	typeDirTree = mustType("(a(say)a(sayay))")
	typeDict    = mustType("a{sv}")
	typeEntry   = typeDict.elem
	typeCommit  = mustType("(a{sv}aya(say)sstayay)")
)

// mustType is for the constant types above.
func mustType(sig string) *vtype {
	t, err := parseType(sig)
	if err != nil {
		panic(err)
	}
	return t
}

// parseType reads exactly one complete type.
func parseType(sig string) (*vtype, error) {
	t, rest, err := parsePrefix(sig, 0)
	if err == nil && rest != "" {
		err = formatErrorf("type %.80q goes on after a complete type", sig)
	}
	return t, err
}

func parsePrefix(sig string, depth int) (*vtype, string, error) {
	if sig == "" || depth > maxDepth {
		return nil, "", formatErrorf("type ends early or nests deeper than %d", maxDepth)
	}
	if size := basicSize(sig[0]); size > 0 {
		return &vtype{sig: sig[:1], kind: sig[0], align: size, fixed: size}, sig[1:], nil
	}
	switch sig[0] {
	case 's', 'o', 'g':
		return &vtype{sig: sig[:1], kind: sig[0], align: 1}, sig[1:], nil
	case 'v':
		return &vtype{sig: sig[:1], kind: 'v', align: 8}, sig[1:], nil
	case 'a', 'm':
		elem, rest, err := parsePrefix(sig[1:], depth+1)
		if err != nil {
			return nil, "", err
		}
		return &vtype{sig: sig[:len(sig)-len(rest)], kind: sig[0], align: elem.align, elem: elem}, rest, nil
	case '(', '{':
		return parseMembers(sig, depth)
	}
	return nil, "", formatErrorf("type %.80q is unknown", sig)
}

func basicSize(c byte) int {
	switch c {
	case 'y', 'b':
		return 1
	case 'n', 'q':
		return 2
	case 'i', 'u', 'h':
		return 4
	case 'x', 't', 'd':
		return 8
	}
	return 0
}

func parseMembers(sig string, depth int) (*vtype, string, error) {
	closing := byte(')')
	if sig[0] == '{' {
		closing = '}'
	}
	t := &vtype{kind: sig[0], align: 1}
	rest := sig[1:]
	for rest != "" && rest[0] != closing {
		m, next, err := parsePrefix(rest, depth+1)
		if err != nil {
			return nil, "", err
		}
		t.members, rest = append(t.members, m), next
		t.align = max(t.align, m.align)
	}
	if rest == "" {
		return nil, "", formatErrorf("type %.80q is not closed", sig)
	}
	if closing == '}' && !isDictEntry(t.members) {
		return nil, "", formatErrorf("type %.80q is not a key of a basic type and a value", sig)
	}
	rest = rest[1:]
	t.sig, t.fixed = sig[:len(sig)-len(rest)], fixedTupleSize(t)
	return t, rest, nil
}

func isDictEntry(members []*vtype) bool {
	return len(members) == 2 && (basicSize(members[0].kind) > 0 || strings.IndexByte("sog", members[0].kind) >= 0)
}

// fixedTupleSize is 0 when a member varies in size. The empty tuple has one byte.
func fixedTupleSize(t *vtype) int {
	size := 0
	for _, m := range t.members {
		if m.fixed == 0 {
			return 0
		}
		size = alignUp(size, m.align) + m.fixed
	}
	return max(1, alignUp(size, t.align))
}

func alignUp(n, align int) int { return (n + align - 1) &^ (align - 1) }

// offsetWidth is the number of bytes of each framing offset in a container of n bytes, offsets
// included.
func offsetWidth(n int) int {
	switch {
	case n <= 0xff:
		return 1
	case n <= 0xffff:
		return 2
	case n <= 0xffffffff:
		return 4
	}
	return 8
}

// minimalWidth is the width that an encoder must choose for count offsets behind a body of that
// many bytes.
func minimalWidth(body, count int) int {
	for w := 1; w < 8; w *= 2 {
		if offsetWidth(body+count*w) <= w {
			return w
		}
	}
	return 8
}

func readOffset(b []byte) int {
	var buf [8]byte
	copy(buf[:], b)
	v := binary.LittleEndian.Uint64(buf[:])
	if v > 1<<62 {
		return -1
	}
	return int(v)
}

// appendOffsets ends the container that began at start in b. The offsets are given in the order in
// which they stand in the file: of an array in element order, of a tuple last member first.
func appendOffsets(b []byte, start int, ends []int) []byte {
	w := minimalWidth(len(b)-start, len(ends))
	var buf [8]byte
	for _, end := range ends {
		binary.LittleEndian.PutUint64(buf[:], uint64(end))
		b = append(b, buf[:w]...)
	}
	return b
}

// appendPadding fills up to the next multiple of align, counted from start.
func appendPadding(b []byte, start, align int) []byte {
	for (len(b)-start)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// splitArray returns the serialized elements of an array of elem, without copying, after checking
// the framing. The elements themselves are not checked.
func splitArray(data []byte, elem *vtype) ([][]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if elem.fixed > 0 {
		return splitFixed(data, elem)
	}
	w := offsetWidth(len(data))
	if len(data) < w {
		return nil, formatErrorf("array of %s is shorter than one offset", elem.sig)
	}
	table := readOffset(data[len(data)-w:])
	if table < 0 || table > len(data)-w || (len(data)-table)%w != 0 {
		return nil, formatErrorf("array of %s has its offset table at %d of %d bytes", elem.sig, table, len(data))
	}
	count := (len(data) - table) / w
	if minimalWidth(table, count) != w {
		return nil, formatErrorf("array of %s has wider offsets than needed", elem.sig)
	}
	out := make([][]byte, count)
	pos := 0
	for i := range out {
		end := readOffset(data[table+i*w : table+(i+1)*w])
		var err error
		if out[i], err = cut(data, pos, end, table, elem); err != nil {
			return nil, err
		}
		pos = end
	}
	return out, nil
}

func splitFixed(data []byte, elem *vtype) ([][]byte, error) {
	if len(data)%elem.fixed != 0 {
		return nil, formatErrorf("array of %s has %d bytes, not a multiple of %d", elem.sig, len(data), elem.fixed)
	}
	out := make([][]byte, len(data)/elem.fixed)
	for i := range out {
		out[i] = data[i*elem.fixed : (i+1)*elem.fixed]
	}
	return out, nil
}

// cut returns the child of type t that follows pos, padding skipped, and ends at end, which may not
// lie beyond limit.
func cut(data []byte, pos, end, limit int, t *vtype) ([]byte, error) {
	start := alignUp(pos, t.align)
	if end < start || end > limit {
		return nil, formatErrorf("a %s ends at %d, outside %d to %d", t.sig, end, start, limit)
	}
	if !allZero(data[pos:start]) {
		return nil, formatErrorf("padding before a %s is not zero", t.sig)
	}
	return data[start:end:end], nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// splitTuple returns the serialized members of a tuple or dict entry, without copying, after
// checking the framing. The members themselves are not checked.
func splitTuple(data []byte, t *vtype) ([][]byte, error) {
	if t.fixed > 0 && len(data) != t.fixed {
		return nil, formatErrorf("a %s has %d bytes, want %d", t.sig, len(data), t.fixed)
	}
	w, offsets := offsetWidth(len(data)), t.offsetCount()
	body := len(data) - offsets*w
	if body < 0 || offsets > 0 && minimalWidth(body, offsets) != w {
		return nil, formatErrorf("a %s of %d bytes is too short or has wider offsets than needed", t.sig, len(data))
	}
	out := make([][]byte, len(t.members))
	pos, next := 0, len(data)
	for i, m := range t.members {
		end := body
		switch {
		case m.fixed > 0:
			end = alignUp(pos, m.align) + m.fixed
		case i < len(t.members)-1:
			next -= w
			end = readOffset(data[next : next+w])
		}
		var err error
		if out[i], err = cut(data, pos, end, body, m); err != nil {
			return nil, err
		}
		pos = end
	}
	return out, t.checkTail(data[pos:body])
}

// offsetCount is the number of framing offsets of a tuple: one for each member of varying size but
// the last.
func (t *vtype) offsetCount() int {
	n := 0
	for i, m := range t.members {
		if m.fixed == 0 && i < len(t.members)-1 {
			n++
		}
	}
	return n
}

// checkTail looks at the bytes after the last member: padding in a tuple of fixed size, nothing in
// any other.
func (t *vtype) checkTail(tail []byte) error {
	if t.fixed == 0 && len(tail) > 0 || !allZero(tail) {
		return formatErrorf("a %s has stray bytes after its last member", t.sig)
	}
	return nil
}

// checkNormal verifies that data is the normal form of a value of type t, all the way down.
func checkNormal(data []byte, t *vtype, depth int) error {
	if depth > maxDepth {
		return formatErrorf("values nest deeper than %d", maxDepth)
	}
	switch t.kind {
	case 's', 'o', 'g':
		_, err := decodeString(data)
		return err
	case 'v':
		child, ct, err := splitVariant(data)
		if err != nil {
			return err
		}
		return checkNormal(child, ct, depth+1)
	case 'b':
		if len(data) != 1 || data[0] > 1 {
			return formatErrorf("a boolean is neither 0 nor 1")
		}
		return nil
	case 'a':
		return checkArray(data, t, depth)
	case 'm':
		return checkMaybe(data, t, depth)
	case '(', '{':
		parts, err := splitTuple(data, t)
		for i := 0; err == nil && i < len(parts); i++ {
			err = checkNormal(parts[i], t.members[i], depth+1)
		}
		return err
	}
	if len(data) != t.fixed {
		return formatErrorf("a %s has %d bytes", t.sig, len(data))
	}
	return nil
}

func checkArray(data []byte, t *vtype, depth int) error {
	if t.elem.kind != 'b' && basicSize(t.elem.kind) > 0 {
		if len(data)%t.elem.fixed != 0 {
			return formatErrorf("a %s has %d bytes", t.sig, len(data))
		}
		return nil
	}
	parts, err := splitArray(data, t.elem)
	for i := 0; err == nil && i < len(parts); i++ {
		err = checkNormal(parts[i], t.elem, depth+1)
	}
	return err
}

// checkMaybe checks a value that may be absent: nothing, or the child, followed by a zero byte when
// the child's size varies.
func checkMaybe(data []byte, t *vtype, depth int) error {
	if len(data) == 0 {
		return nil
	}
	if t.elem.fixed == 0 {
		if data[len(data)-1] != 0 {
			return formatErrorf("a %s does not end in a zero byte", t.sig)
		}
		data = data[:len(data)-1]
	}
	return checkNormal(data, t.elem, depth+1)
}

// splitVariant takes a variant apart: the child's bytes, a zero byte, the type.
func splitVariant(data []byte) ([]byte, *vtype, error) {
	i := bytes.LastIndexByte(data, 0)
	if i < 0 {
		return nil, nil, formatErrorf("a variant names no type")
	}
	t, err := parseType(string(data[i+1:]))
	if err != nil {
		return nil, nil, err
	}
	if t.fixed > 0 && i != t.fixed {
		return nil, nil, formatErrorf("a variant of type %s holds %d bytes", t.sig, i)
	}
	return data[:i:i], t, nil
}

// decodeString copies a string, which must be UTF-8 with one final NUL.
func decodeString(data []byte) (string, error) {
	n := len(data) - 1
	if n < 0 || bytes.IndexByte(data, 0) != n || !utf8.Valid(data[:n]) {
		return "", formatErrorf("string %.80q is not UTF-8 with one final NUL", data)
	}
	return string(data[:n]), nil
}
