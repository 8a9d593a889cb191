package ostree

import "encoding/binary"

// Values of the types that commits of other programs have in their metadata.

// BoolValue makes a value of type b.
func BoolValue(b bool) Variant {
	if b {
		return Variant{"b", "\x01"}
	}
	return Variant{"b", "\x00"}
}

// Uint32Value makes a value of type u in little-endian order, as producers on little-endian
// machines write it.
func Uint32Value(n uint32) Variant {
	return Variant{"u", string(binary.LittleEndian.AppendUint32(nil, n))}
}

// Uint64Value makes a value of type t in little-endian order.
func Uint64Value(n uint64) Variant {
	return Variant{"t", string(binary.LittleEndian.AppendUint64(nil, n))}
}

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
