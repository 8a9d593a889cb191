package ostree

import (
	"strings"
	"unicode/utf8"
)

// Variant is one value of a commit's metadata: a type and its serialized bytes in normal form. The
// zero Variant is not a value.
type Variant struct {
	sig  string
	data string // immutable, so that Variants compare with ==
}

// KeyValue is one entry of a metadata dictionary, whose order is kept.
type KeyValue struct {
	Key   string
	Value Variant
}

// StringValue makes a value of type s. Strings that are not UTF-8 or hold a NUL are refused when
// the commit is written.
func StringValue(s string) Variant { return Variant{"s", s + "\x00"} }

// BytesValue makes a value of type ay.
func BytesValue(b []byte) Variant { return Variant{"ay", string(b)} }

// Bytes returns the content of a value of type ay.
func (v Variant) Bytes() ([]byte, error) {
	if v.sig != "ay" {
		return nil, formatErrorf("value has type %q, want \"ay\"", v.sig)
	}
	return []byte(v.data), nil
}

// Blobs returns the elements of a value of type aay.
func (v Variant) Blobs() ([][]byte, error) {
	if v.sig != "aay" {
		return nil, formatErrorf("value has type %q, want \"aay\"", v.sig)
	}
	element, err := parseType("ay")
	if err != nil {
		return nil, err
	}
	return splitArray([]byte(v.data), element)
}

// check verifies the type and the normal form of a value that a caller built.
func (v Variant) check() error {
	t, err := parseType(v.sig)
	if err != nil {
		return err
	}
	return checkNormal([]byte(v.data), t, 0)
}

// Str returns the text of a value of type s.
func (v Variant) Str() (string, error) {
	if v.sig != "s" {
		return "", formatErrorf("value has type %q, want \"s\"", v.sig)
	}
	if err := v.check(); err != nil {
		return "", err
	}
	return decodeString([]byte(v.data))
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
