package ostree

import (
	"bytes"
	"testing"
)

// The fuzz targets hold for any bytes: a decoder ends without a panic, and the value that it
// accepts is the very encoding of the value it returns. So everything but the normal form is
// refused.

func fuzzDecoder[T interface{ Encode() ([]byte, error) }](f *testing.F, decode func([]byte) (T, error)) {
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			return
		}
		again, err := v.Encode()
		if err != nil {
			t.Fatalf("decoded %+v cannot be encoded: %v", v, err)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", data, v, again)
		}
	})
}

func FuzzDecodeDirTree(f *testing.F) {
	data, _ := exampleTree(f).Encode()
	f.Add(data)
	f.Add([]byte{0})
	var big DirTree
	for i := range 300 {
		big.Files = append(big.Files, FileEntry{Name: string(rune('a'+i%26)) + string(rune(0x100+i))})
	}
	data, _ = big.Encode()
	f.Add(data)
	fuzzDecoder(f, DecodeDirTree)
}

func FuzzDecodeDirMeta(f *testing.F) {
	for _, m := range []DirMeta{{Mode: 0o40755}, {Mode: 0o41777, UID: 5, Xattrs: []Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b", Value: bytes.Repeat([]byte("v"), 300)}}}} {
		data, _ := m.Encode()
		f.Add(data)
	}
	fuzzDecoder(f, DecodeDirMeta)
}

func FuzzDecodeCommit(f *testing.F) {
	c := exampleCommit(f)
	data, _ := c.Encode()
	f.Add(data)
	c.Parent = c.Tree
	c.Metadata = append(c.Metadata, KeyValue{"l", StringsValue([]string{"x", ""})}, KeyValue{"n", Uint64Value(1)},
		KeyValue{"d", DictValue([]KeyValue{{"b", BoolValue(false)}})}, KeyValue{"yy", BlobsValue([][]byte{{1, 2}, nil})})
	data, _ = c.Encode()
	f.Add(data)
	fuzzDecoder(f, DecodeCommit)
}

// FuzzCheckNormal walks values of any type.
func FuzzCheckNormal(f *testing.F) {
	f.Add("a{sv}", []byte(DictValue([]KeyValue{{"k", BytesValue([]byte{1})}}).data))
	f.Add("mas", append([]byte(StringsValue([]string{"x"}).data), 0))
	f.Add("(ut)", make([]byte, 16))
	f.Add("a()", []byte{0, 0, 0})
	f.Add("v", []byte("\x00\x00v\x00v\x00v"))
	f.Fuzz(func(t *testing.T, sig string, data []byte) {
		typ, err := parseType(sig)
		if err != nil {
			return
		}
		before := bytes.Clone(data)
		if err := checkNormal(data, typ, 0); err == nil && typ.fixed > 0 && len(data) != typ.fixed {
			t.Fatalf("%d bytes are taken for the fixed type %s", len(data), sig)
		}
		if !bytes.Equal(before, data) {
			t.Fatal("the check changed its input")
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	data, _ := Config{Bootloader: "none", BootPrefix: true}.encode()
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		out, err := c.encode()
		if err != nil {
			return // a boot loader's name of several words
		}
		if again, err := parseConfig(out); err != nil || again != c {
			t.Fatalf("%q gives %+v, which is written as %q and read as %+v (%v)", data, c, out, again, err)
		}
	})
}
