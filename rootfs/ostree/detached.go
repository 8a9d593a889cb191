package ostree

import (
	"crypto/sha256"
	"fmt"
	"hash"
)

// Hash returns a SHA-256 to which the header was written: with the content written after it, its
// sum is the file object's name.
func (h FileHeader) Hash() (hash.Hash, error) {
	h, err := h.normalize()
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	sum.Write(appendHeader(make([]byte, 0, 256), &h))
	return sum, nil
}

// DecodeXattrs reads a list of extended attributes, a(ayay), as file headers and dirmeta objects
// have it. Nothing of data is kept.
func DecodeXattrs(data []byte) ([]Xattr, error) { return decodeXattrs(data) }

// DecodeMetadata reads a dictionary, a{sv}: the detached metadata of a commit. Nothing of data is
// kept.
func DecodeMetadata(data []byte) ([]KeyValue, error) { return decodeDict(data) }

// detached is the metadata beside a commit, such as its signatures.
type detached []KeyValue

func (d detached) Encode() ([]byte, error) {
	for _, kv := range d {
		if err := checkEntry(kv.Key, kv.Value); err != nil {
			return nil, err
		}
	}
	return appendDict(nil, d), nil
}

// WriteCommitMeta stores the detached metadata of a commit, unless the commit has some.
func (r *Repo) WriteCommitMeta(commit Checksum, metadata []KeyValue) error {
	data, err := detached(metadata).Encode()
	if err != nil {
		return fmt.Errorf("storing a %s: %w", TypeCommitMeta, err)
	}
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	k := objectKey{commit, TypeCommitMeta}
	return k.wrap(r.writer.store(k, &metadataHeader, data))
}
