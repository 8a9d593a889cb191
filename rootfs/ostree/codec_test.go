package ostree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The examples of this file were made by the ostree command.

const (
	sumHello   = "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b"
	sumLink    = "73baaba0102e9154b8522687d33eedb8ed1bc78eadb82428b2616144ec502934"
	sumPlain   = "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"
	sumLabel   = "c1fa8905c02e0199c4f6f215923914173d7030e336c0922fb2f0d800bf7a9b40"
	sumEmpty   = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
	sumTree    = "f5480a724275177df65c1f34d120a86693f15f567adc05b4618742edb4aea005"
	sumCommit  = "3138e23955bdc7e1278a44be13ee47931533a7585d991aa9ac87e4bec09e194c"
	labelValue = "system_u:object_r:etc_t:s0\x00"
)

func sum(t testing.TB, s string) Checksum {
	t.Helper()
	c, err := ParseChecksum(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleTree(t testing.TB) DirTree {
	return DirTree{
		// Not in order: the encoder sorts.
		Files: []FileEntry{{"link", sum(t, sumLink)}, {"hello", sum(t, sumHello)}},
		Dirs:  []DirEntry{{"sub", sum(t, sumEmpty), sum(t, sumLabel)}},
	}
}

func exampleCommit(t testing.TB) Commit {
	return Commit{
		Metadata: []KeyValue{{"version", StringValue("1")}},
		Subject:  "s", Body: "b", Timestamp: 1700000000,
		Tree: sum(t, sumTree), Meta: sum(t, sumPlain),
	}
}

func TestGoldenObjects(t *testing.T) {
	label := []Xattr{{Name: "security.selinux", Value: []byte(labelValue)}}
	for _, c := range []struct {
		name, want string
		object     interface{ Encode() ([]byte, error) }
	}{
		{"plain dirmeta", sumPlain, DirMeta{Mode: 0o40755}},
		{"labelled dirmeta", sumLabel, DirMeta{Mode: 0o40755, Xattrs: label}},
		{"empty dirtree", sumEmpty, DirTree{}},
		{"dirtree", sumTree, exampleTree(t)},
		{"commit", sumCommit, exampleCommit(t)},
	} {
		data, err := c.object.Encode()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := Checksum(sha256.Sum256(data)); got.String() != c.want {
			t.Errorf("%s: checksum %s, want %s\n%s", c.name, got, c.want, hex.Dump(data))
		}
	}
}

func TestGoldenBytes(t *testing.T) {
	meta, err := DirMeta{Mode: 0o40755, Xattrs: []Xattr{{Name: "security.selinux", Value: []byte(labelValue)}}}.Encode()
	want := append(unhex(t, "00000000 00000000 000041ed"), "security.selinux\x00"+labelValue+"\x11\x2d"...)
	if err != nil || !bytes.Equal(meta, want) {
		t.Errorf("dirmeta %x (%v), want %x", meta, err, want)
	}
	tree, err := DirTree{}.Encode()
	if err != nil || !bytes.Equal(tree, []byte{0}) {
		t.Errorf("empty dirtree is %x (%v), want 00", tree, err)
	}
	commit, err := exampleCommit(t).Encode()
	tail := unhex(t, "40 12 10 0e 0e 0e")
	if err != nil || len(commit) != 0x66 || !bytes.HasSuffix(commit, tail) {
		t.Errorf("commit %x (%v)", commit, err)
	}
}

func TestGoldenContent(t *testing.T) {
	for _, c := range []struct {
		name, want, content string
		header              FileHeader
	}{
		{"file", sumHello, "hello\n", FileHeader{Mode: 0o100644}},
		{"link", sumLink, "", FileHeader{Mode: 0o120777, Target: "hello"}},
		{"link of another mode", sumLink, "", FileHeader{Mode: 0o120644, Target: "hello"}},
		{"file with attribute", "19cd3dcf32f36308819c6ab2e2b65960c69f16ebad0db4c7fee037ed141dc804", "hello\n",
			FileHeader{Mode: 0o100644, Xattrs: []Xattr{{Name: "user.a", Value: []byte("1")}}}},
		{"attributes cleaned", "19cd3dcf32f36308819c6ab2e2b65960c69f16ebad0db4c7fee037ed141dc804", "hello\n",
			FileHeader{Mode: 0o100644, Xattrs: []Xattr{{Name: "user.b", Value: nil}, {Name: "user.a", Value: []byte("0")}, {Name: "user.a", Value: []byte("1")}}}},
	} {
		h, err := c.header.normalize()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := Checksum(sha256.Sum256(append(appendHeader(nil, &h), c.content...))); got.String() != c.want {
			t.Errorf("%s: checksum %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDecodeGivesBack(t *testing.T) {
	tree := exampleTree(t).sorted()
	data, _ := tree.Encode()
	if got, err := DecodeDirTree(data); err != nil || !reflect.DeepEqual(got, tree) {
		t.Errorf("dirtree %v (%v)", got, err)
	}
	meta := DirMeta{UID: 1, GID: 1<<32 - 2, Mode: 0o43777, Xattrs: []Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b", Value: []byte("\x00")}}}
	data, _ = meta.Encode()
	if got, err := DecodeDirMeta(data); err != nil || !reflect.DeepEqual(got, meta) {
		t.Errorf("dirmeta %v (%v)", got, err)
	}
	commit := exampleCommit(t)
	commit.Parent = sum(t, sumCommit)
	commit.Metadata = append(commit.Metadata, KeyValue{"ostree.bootable", BoolValue(true)},
		KeyValue{"d", DictValue([]KeyValue{{"inner", StringsValue([]string{"a", "b"})}})})
	data, _ = commit.Encode()
	if got, err := DecodeCommit(data); err != nil || !reflect.DeepEqual(got, commit) {
		t.Errorf("commit %v (%v)", got, err)
	}
}

func TestVariantAccess(t *testing.T) {
	if s, err := StringValue("x").Str(); s != "x" || err != nil {
		t.Error(s, err)
	}
	if _, err := Uint32Value(7).Str(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a string read as a number: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	c := sum(t, sumHello)
	names := func(n ...string) (t DirTree) {
		for _, s := range n {
			t.Files = append(t.Files, FileEntry{s, c})
		}
		return t
	}
	for what, object := range map[string]interface{ Encode() ([]byte, error) }{
		"empty name":        names(""),
		"dot":               names("."),
		"dot dot":           names(".."),
		"slash":             names("a/b"),
		"NUL":               names("a\x00"),
		"not UTF-8":         names("\xff"),
		"repeated":          names("a", "a"),
		"file and dir":      DirTree{Files: names("a", "b").Files, Dirs: []DirEntry{{"b", c, c}}},
		"directory mode":    DirMeta{Mode: 0o100644},
		"mode bits":         DirMeta{Mode: 0o240755},
		"owner":             DirMeta{Mode: 0o40755, UID: noID},
		"attribute name":    DirMeta{Mode: 0o40755, Xattrs: []Xattr{{Name: "", Value: []byte("1")}}},
		"empty key":         Commit{Metadata: []KeyValue{{"", StringValue("")}}},
		"value not UTF-8":   Commit{Metadata: []KeyValue{{"k", StringValue("\xff")}}},
		"no value":          Commit{Metadata: []KeyValue{{"k", Variant{}}}},
		"subject not UTF-8": Commit{Subject: "\xff"},
		"NUL in body":       Commit{Body: "\x00"},
	} {
		if _, err := object.Encode(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestDecodeRefuses: data that differs from the normal form by one byte.
func TestDecodeRefuses(t *testing.T) {
	tree, _ := exampleTree(t).Encode()
	commit, _ := exampleCommit(t).Encode()
	edit := func(b []byte, i int, v byte) []byte {
		b = bytes.Clone(b)
		b[i] = v
		return b
	}
	for what, data := range map[string][]byte{
		"nothing":              {},
		"offset past the end":  edit(tree, len(tree)-1, 0xff),
		"offset moved":         edit(tree, len(tree)-1, 0x4e),
		"name is dot dot":      bytes.Replace(tree, []byte("sub\x00"), []byte("..\x00\x00"), 1),
		"name without NUL":     bytes.Replace(tree, []byte("sub\x00"), []byte("subs"), 1),
		"names out of order":   bytes.Replace(tree, []byte("hello\x00"), []byte("mello\x00"), 1),
		"trailing byte":        append(bytes.Clone(tree), 0),
		"short":                tree[1:],
		"element ends early":   edit(tree, 0x4d, 0x26),
		"element order broken": edit(tree, 0x4e, 0x20),
	} {
		if v, err := DecodeDirTree(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("dirtree, %s: %v, error %v", what, v, err)
		}
	}
	for what, data := range map[string][]byte{
		"padding not zero": edit(commit, 0x13, 1),
		"unknown type":     edit(commit, 0x0b, 'Z'),
		"trailing byte":    append(bytes.Clone(commit), 0),
		"string unended":   edit(commit, 0x0f, 'x'),
	} {
		if v, err := DecodeCommit(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("commit, %s: %v, error %v", what, v, err)
		}
	}
	if _, err := DecodeDirMeta(unhex(t, "00000000 00000000 000081ed")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("dirmeta of a file: %v", err)
	}
}

// TestWideOffsetsRefused: a container whose offsets are wider than they need be decodes to the same
// value but is not the normal form.
func TestWideOffsetsRefused(t *testing.T) {
	body := append(bytes.Repeat([]byte{'x'}, 252), 0)
	wide := append(bytes.Clone(body), 0xfd, 0)
	if err := checkNormal(append(wide, 0), mustType("as"), 0); err == nil {
		t.Error("an array with a two-byte offset of 256 bytes is taken as normal")
	}
	if err := checkNormal(append(bytes.Clone(body), 0xfd), mustType("as"), 0); err != nil {
		t.Errorf("an array with a one-byte offset: %v", err)
	}
}

func TestParseType(t *testing.T) {
	for _, s := range []string{"", "z", "a", "(", "(s", "ss", "{vs}", "{s}", "{sss}", "m", strings.Repeat("a", 500) + "s", "()x"} {
		if typ, err := parseType(s); err == nil {
			t.Errorf("type %q is taken as %v", s, typ)
		}
	}
	for s, want := range map[string][2]int{"(ut)": {16, 8}, "(ty)": {16, 8}, "(yt)": {16, 8}, "()": {1, 1}, "(yy)": {2, 1}, "{sv}": {0, 8}, "a(ayay)": {0, 1}, "mas": {0, 1}} {
		typ, err := parseType(s)
		if err != nil || typ.fixed != want[0] || typ.align != want[1] {
			t.Errorf("type %q: %+v, %v", s, typ, err)
		}
	}
}
