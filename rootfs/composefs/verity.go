package composefs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// Digest is the fs-verity digest of a file: SHA-256, blocks of 4 KiB, no salt.
type Digest [sha256.Size]byte

// String is the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Parameters of the digest, as in struct fsverity_descriptor of <linux/fsverity.h>.
const (
	verityVersion   = 1
	veritySHA256    = 1
	veritySHA512    = 2
	verityBlockBits = 12
	verityBlock     = 1 << verityBlockBits
	verityDescSize  = 256
)

// NewHash returns a hash whose sum is the fs-verity digest of the bytes that it gets. It keeps one
// block of the content, and one for each level of the Merkle tree.
func NewHash() hash.Hash { return &verity{} }

// verity is a Merkle tree under construction.
type verity struct {
	size   uint64
	data   []byte   // content that does not fill a block yet
	levels [][]byte // hashes of each level that do not fill a block yet, the lowest level first
}

func (v *verity) Size() int      { return sha256.Size }
func (v *verity) BlockSize() int { return verityBlock }

func (v *verity) Reset() {
	v.size, v.data = 0, v.data[:0]
	for n := range v.levels {
		v.levels[n] = v.levels[n][:0]
	}
}

func (v *verity) Write(p []byte) (int, error) {
	n := len(p)
	v.size += uint64(n)
	if len(v.data) > 0 {
		take := min(verityBlock-len(v.data), len(p))
		v.data = append(v.data, p[:take]...)
		p = p[take:]
		if len(v.data) < verityBlock {
			return n, nil
		}
		v.add(0, sha256.Sum256(v.data))
		v.data = v.data[:0]
	}
	for ; len(p) >= verityBlock; p = p[verityBlock:] {
		v.add(0, sha256.Sum256(p[:verityBlock]))
	}
	v.data = append(v.data, p...)
	return n, nil
}

// add appends a hash to a level. A block of hashes that is full goes to the level above.
func (v *verity) add(level int, h [sha256.Size]byte) {
	if level == len(v.levels) {
		v.levels = append(v.levels, make([]byte, 0, verityBlock))
	}
	v.levels[level] = append(v.levels[level], h[:]...)
	if len(v.levels[level]) == verityBlock {
		full := sha256.Sum256(v.levels[level])
		v.levels[level] = v.levels[level][:0]
		v.add(level+1, full)
	}
}

// Sum appends the digest of the bytes so far.
func (v *verity) Sum(b []byte) []byte {
	var desc [verityDescSize]byte
	desc[0], desc[1], desc[2] = verityVersion, veritySHA256, verityBlockBits
	binary.LittleEndian.PutUint64(desc[8:], v.size)
	root := v.root()
	copy(desc[16:], root[:])
	sum := sha256.Sum256(desc[:])
	return append(b, sum[:]...)
}

// root returns the root hash: zeros for an empty file, else the hash of the one block at the top.
func (v *verity) root() (root [sha256.Size]byte) {
	var carry []byte // the hash that the level below adds to this one
	if len(v.data) > 0 {
		h := padded(v.data)
		carry = h[:]
	}
	for n, kept := range v.levels {
		hashes := append(kept[:len(kept):len(kept)], carry...)
		carry = hashes
		if len(hashes) > sha256.Size || len(hashes) > 0 && v.above(n) {
			h := padded(hashes)
			carry = h[:]
		}
	}
	copy(root[:], carry)
	return root
}

// above reports whether a level above level n has hashes.
func (v *verity) above(n int) bool {
	for _, kept := range v.levels[n+1:] {
		if len(kept) > 0 {
			return true
		}
	}
	return false
}

// padded is the hash of a block that zeros fill up.
func padded(data []byte) [sha256.Size]byte {
	var block [verityBlock]byte
	copy(block[:], data)
	return sha256.Sum256(block[:])
}
