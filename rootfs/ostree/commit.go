package ostree

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// Commit is a root directory with its metadata and history.
type Commit struct {
	Metadata      []KeyValue // in this order, keys not empty
	Parent        Checksum   // the zero value: none
	Subject, Body string
	Timestamp     uint64 // seconds since 1970-01-01 UTC
	Tree, Meta    Checksum
}

// Value returns the metadata value of key.
func (c Commit) Value(key string) (Variant, bool) {
	for _, kv := range c.Metadata {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return Variant{}, false
}

// ContentChecksum depends on the tree alone, not on metadata or time: two commits of one tree share
// it. `ostree show` prints it.
func (c Commit) ContentChecksum() Checksum {
	return sha256.Sum256(append(c.Tree[:], c.Meta[:]...))
}

// Encode returns the object's bytes, (a{sv}aya(say)sstayay).
func (c Commit) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := appendDict(make([]byte, 0, 256), c.Metadata)
	metaEnd := len(b)
	if !c.Parent.IsZero() {
		b = append(b, c.Parent[:]...)
	}
	parentEnd := len(b) // the list of related objects is empty and ends here too
	b = append(append(b, c.Subject...), 0)
	subjectEnd := len(b)
	b = append(append(b, c.Body...), 0)
	bodyEnd := len(b)
	b = appendPadding(b, 0, 8)
	b = binary.BigEndian.AppendUint64(b, c.Timestamp)
	b = append(b, c.Tree[:]...)
	treeEnd := len(b)
	b = append(b, c.Meta[:]...)
	return appendOffsets(b, 0, []int{treeEnd, bodyEnd, subjectEnd, parentEnd, parentEnd, metaEnd}), nil
}

func (c Commit) check() error {
	for _, kv := range c.Metadata {
		if err := checkEntry(kv.Key, kv.Value); err != nil {
			return err
		}
	}
	for _, s := range []string{c.Subject, c.Body} {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return formatErrorf("commit subject or body %.80q holds a NUL or is not UTF-8", s)
		}
	}
	return nil
}

// DecodeCommit reads the bytes of a commit object. Nothing of data is kept. A list of related
// objects, which nothing has ever written, is refused.
func DecodeCommit(data []byte) (Commit, error) {
	p, err := splitTuple(data, typeCommit)
	if err != nil {
		return Commit{}, err
	}
	var c Commit
	if c.Metadata, err = decodeDict(p[0]); err != nil {
		return Commit{}, err
	}
	if len(p[1]) > 0 {
		if c.Parent, err = checksumFromBytes(p[1]); err != nil {
			return Commit{}, err
		}
		if c.Parent.IsZero() {
			return Commit{}, formatErrorf("the parent commit is all zero")
		}
	}
	if len(p[2]) > 0 {
		return Commit{}, formatErrorf("the commit lists related objects")
	}
	if c.Subject, err = decodeString(p[3]); err != nil {
		return Commit{}, err
	}
	if c.Body, err = decodeString(p[4]); err != nil {
		return Commit{}, err
	}
	c.Timestamp = binary.BigEndian.Uint64(p[5])
	if c.Tree, err = checksumFromBytes(p[6]); err != nil {
		return Commit{}, err
	}
	c.Meta, err = checksumFromBytes(p[7])
	return c, err
}
