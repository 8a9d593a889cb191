package ostree

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// Variant is one value of a commit's metadata: a type and its serialized bytes
// in normal form. The zero Variant is not a value.
type Variant struct {
	sig  string
	data string // immutable, so that Variants compare with ==
}

// KeyValue is one entry of a metadata dictionary, whose order is kept.
type KeyValue struct {
	Key   string
	Value Variant
}

// StringValue makes a value of type s. Strings that are not UTF-8 or hold a NUL
// are refused when the commit is written.
func StringValue(s string) Variant { return Variant{"s", s + "\x00"} }

// BoolValue makes a value of type b.
func BoolValue(b bool) Variant {
	if b {
		return Variant{"b", "\x01"}
	}
	return Variant{"b", "\x00"}
}

// Uint32Value makes a value of type u in little-endian order, as producers on
// little-endian machines write it.
func Uint32Value(n uint32) Variant {
	return Variant{"u", string(binary.LittleEndian.AppendUint32(nil, n))}
}

// Uint64Value makes a value of type t in little-endian order.
func Uint64Value(n uint64) Variant {
	return Variant{"t", string(binary.LittleEndian.AppendUint64(nil, n))}
}

// BytesValue makes a value of type ay.
func BytesValue(b []byte) Variant { return Variant{"ay", string(b)} }

// StringsValue makes a value of type as.
func StringsValue(list []string) Variant {
	var b []byte
	ends := make([]int, 0, len(list))
	for _, s := range list {
		b = append(append(b, s...), 0)
		ends = append(ends, len(b))
	}
	return Variant{"as", string(appendOffsets(b, 0, ends))}
}

// BlobsValue makes a value of type aay.
func BlobsValue(list [][]byte) Variant {
	var b []byte
	ends := make([]int, 0, len(list))
	for _, s := range list {
		b = append(b, s...)
		ends = append(ends, len(b))
	}
	return Variant{"aay", string(appendOffsets(b, 0, ends))}
}

// DictValue makes a value of type a{sv}, keeping the order.
func DictValue(kv []KeyValue) Variant { return Variant{"a{sv}", string(appendDict(nil, kv))} }

// Type returns the GVariant type string.
func (v Variant) Type() string { return v.sig }

// Serialized returns a copy of the value's bytes, without the type.
func (v Variant) Serialized() []byte { return []byte(v.data) }

// check verifies the type and the normal form of what a caller built.
func (v Variant) check() error {
	t, err := parseType(v.sig)
	if err != nil {
		return err
	}
	return checkNormal([]byte(v.data), t, 0)
}

// want returns the bytes of a value that must have the given type.
func (v Variant) want(sig string) ([]byte, error) {
	if v.sig != sig {
		return nil, formatErrorf("value has type %q, want %q", v.sig, sig)
	}
	return []byte(v.data), v.check()
}

// Str returns the text of a value of type s.
func (v Variant) Str() (string, error) {
	b, err := v.want("s")
	if err != nil {
		return "", err
	}
	return decodeString(b)
}

// Bool returns a value of type b.
func (v Variant) Bool() (bool, error) {
	b, err := v.want("b")
	return err == nil && b[0] == 1, err
}

// Uint32 returns a value of type u, read as little-endian.
func (v Variant) Uint32() (uint32, error) {
	b, err := v.want("u")
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// Uint64 returns a value of type t, read as little-endian.
func (v Variant) Uint64() (uint64, error) {
	b, err := v.want("t")
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// Bytes returns a value of type ay.
func (v Variant) Bytes() ([]byte, error) { return v.want("ay") }

// Strings returns a value of type as.
func (v Variant) Strings() ([]string, error) {
	b, err := v.want("as")
	if err != nil {
		return nil, err
	}
	parts, err := splitArray(b, typeStrings.elem)
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = string(bytes.TrimSuffix(p, []byte{0}))
	}
	return out, err
}

// Blobs returns a value of type aay.
func (v Variant) Blobs() ([][]byte, error) {
	b, err := v.want("aay")
	if err != nil {
		return nil, err
	}
	return splitArray(b, typeBlobs.elem)
}

// Dict returns the entries of a value of type a{sv}.
func (v Variant) Dict() ([]KeyValue, error) {
	b, err := v.want("a{sv}")
	if err != nil {
		return nil, err
	}
	return decodeDict(b)
}

// appendDict appends a{sv}. The array must start at a multiple of 8.
func appendDict(b []byte, kv []KeyValue) []byte {
	if len(kv) == 0 {
		return b
	}
	start := len(b)
	ends := make([]int, 0, len(kv))
	for _, e := range kv {
		b = appendPadding(b, start, 8)
		entry := len(b)
		b = append(append(b, e.Key...), 0)
		keyEnd := len(b) - entry
		b = appendPadding(b, entry, 8)
		b = append(b, e.Value.data...)
		b = append(append(b, 0), e.Value.sig...)
		b = appendOffsets(b, entry, []int{keyEnd})
		ends = append(ends, len(b)-start)
	}
	return appendOffsets(b, start, ends)
}

// decodeDict copies the entries out of a{sv}, which is checked for normal form.
func decodeDict(data []byte) ([]KeyValue, error) {
	parts, err := splitArray(data, typeEntry)
	if err != nil || len(parts) == 0 {
		return nil, err
	}
	out := make([]KeyValue, 0, len(parts))
	for _, p := range parts {
		m, err := splitTuple(p, typeEntry)
		if err != nil {
			return nil, err
		}
		key, err := decodeString(m[0])
		if err != nil {
			return nil, err
		}
		child, t, err := splitVariant(m[1])
		if err != nil {
			return nil, err
		}
		v := Variant{t.sig, string(child)}
		if err := checkEntry(key, v); err != nil {
			return nil, err
		}
		out = append(out, KeyValue{Key: key, Value: v})
	}
	return out, nil
}

func checkEntry(key string, v Variant) error {
	if key == "" || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
		return formatErrorf("metadata key %q is empty, holds a NUL or is not UTF-8", key)
	}
	return v.check()
}
