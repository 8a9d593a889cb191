package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A ZFS device has four labels of 256 KiB: two at its start and two at its end (ZFS on-disk format,
// section 1.2). Each has a name-value list at 16 KiB and a ring of uberblocks at 128 KiB.
const (
	zfsLabel   = 256 << 10
	zfsPairsAt = 16 << 10
	zfsRingAt  = 128 << 10
	zfsStep    = 1 << 10 // the smallest distance of uberblocks
)

var zfsUberblocks = [][]byte{ // in either byte order
	[]byte("\x0c\xb1\xba\x00\x00\x00\x00\x00"), []byte("\x00\x00\x00\x00\x00\xba\xb1\x0c"),
}

// zfsLabels returns the labels of a device.
func zfsLabels(r io.ReaderAt, size int64) (labels [][]byte, err error) {
	end := roundDown(size, zfsLabel)
	for _, at := range []int64{0, zfsLabel, end - 2*zfsLabel, end - zfsLabel} {
		if at < 0 || at+zfsLabel > size {
			continue
		}
		b := make([]byte, zfsLabel)
		if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if isZFSLabel(b) {
			labels = append(labels, b)
		}
	}
	return labels, nil
}

// isZFSLabel reports whether the ring of a label has an uberblock.
func isZFSLabel(b []byte) bool {
	for i := zfsRingAt; i < zfsLabel; i += zfsStep {
		if bytes.Equal(b[i:i+8], zfsUberblocks[0]) || bytes.Equal(b[i:i+8], zfsUberblocks[1]) {
			return true
		}
	}
	return false
}

// zfsPool returns the name of the pool that a label belongs to; "" where it has no name. The list
// is encoded as XDR: length and name of each pair, its type (9 is a string), one element, length
// and text.
func zfsPool(label []byte) string {
	pairs := label[zfsPairsAt:zfsRingAt]
	key := []byte("\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01")
	_, rest, found := bytes.Cut(pairs, key)
	if !found || len(rest) < 4 {
		return ""
	}
	n := binary.BigEndian.Uint32(rest)
	if n > 256 || int(n) > len(rest)-4 {
		return ""
	}
	return string(rest[4 : 4+n])
}

// pools names the ZFS pools whose labels the subject bears. A pool that is imported claims its
// devices, and the kernel shows that nowhere.
func (s subject) pools() []Use {
	f, err := os.Open(s.path)
	if err != nil {
		return nil // the refusal stands without the name
	}
	defer f.Close()
	var uses []Use
	for _, n := range s.nodes {
		labels, err := zfsLabels(io.NewSectionReader(f, n.start, n.size), n.size)
		if err != nil || len(labels) == 0 {
			continue
		}
		pool := zfsPool(labels[0])
		if pool == "" {
			pool = "POOL"
		}
		uses = append(uses, Use{Kind: ZFS, What: n.path(), Why: fmt.Sprintf("claimed exclusively, and it is a member of the ZFS pool %s", pool),
			Remedy: "zpool export " + pool})
	}
	return uses
}
