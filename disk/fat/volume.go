package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Numbers of the FAT32 format (Microsoft FAT specification, sections 3 to 6).
const (
	leastClusters = 65525 // below, a volume is FAT16
	mask          = 0x0fffffff
	badCluster    = 0x0ffffff7
	endOfChain    = 0x0ffffff8 // and above: last of a chain
	largestTable  = 16 << 20   // bytes, for it is read into memory: 16 GiB in clusters of 4 KiB
)

// Volume is a FAT32 file system, read by code that has no part in writing it.
type Volume struct {
	r         io.ReaderAt
	sector    int64 // bytes
	cluster   int64 // bytes
	dataStart int64 // of cluster 2, bytes
	clusters  int64
	rootDir   uint32
	boot      []byte
	table     []byte
	copies    int64
	tableAt   int64
	used      []bool           // by cluster
	files     map[string]*File // by path in lower case
	Names     []string         // of files and directories, in the order of the tree
}

// Open reads boot sector and allocation table; an error means that nothing further can be read.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("the boot sector cannot be read: %w", err)
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil, fmt.Errorf("the boot sector does not end in 55 aa but in %02x %02x", b[510], b[511])
	}
	le := binary.LittleEndian
	v := &Volume{r: r, boot: b, files: map[string]*File{}, sector: int64(le.Uint16(b[11:])), copies: int64(b[16])}
	perCluster, reserved, tableSectors := int64(b[13]), int64(le.Uint16(b[14:])), int64(le.Uint32(b[36:]))
	total := int64(le.Uint32(b[32:])) * v.sector
	switch {
	case v.sector != 512 && v.sector != 4096 || perCluster == 0 || perCluster&(perCluster-1) != 0 || perCluster > 128:
		return nil, fmt.Errorf("the boot sector claims sectors of %d bytes and clusters of %d sectors", v.sector, perCluster)
	case le.Uint16(b[17:]) != 0 || le.Uint16(b[22:]) != 0 || le.Uint16(b[19:]) != 0:
		return nil, fmt.Errorf("the file system is not FAT32")
	case reserved == 0 || v.copies != 2 || tableSectors == 0 || tableSectors*v.sector > largestTable:
		return nil, fmt.Errorf("the boot sector claims %d reserved sectors and %d tables of %d sectors", reserved, v.copies, tableSectors)
	case total == 0 || total > size:
		return nil, fmt.Errorf("the boot sector claims %d bytes, and the partition has %d", total, size)
	}
	v.cluster, v.tableAt = perCluster*v.sector, reserved*v.sector
	v.dataStart = v.tableAt + v.copies*tableSectors*v.sector
	v.clusters = (total - v.dataStart) / v.cluster
	v.rootDir = le.Uint32(b[44:])
	if v.clusters < leastClusters || (v.clusters+2)*4 > tableSectors*v.sector {
		return nil, fmt.Errorf("%d clusters are not possible with tables of %d sectors", v.clusters, tableSectors)
	}
	v.table, v.used = make([]byte, tableSectors*v.sector), make([]bool, v.clusters+2)
	if _, err := r.ReadAt(v.table, v.tableAt); err != nil {
		return nil, fmt.Errorf("the allocation table cannot be read: %w", err)
	}
	return v, nil
}

// next is the table's entry for a cluster.
func (v *Volume) next(cluster uint32) uint32 {
	return binary.LittleEndian.Uint32(v.table[4*int64(cluster):]) & mask
}

// chain follows a chain and marks its clusters as used.
func (v *Volume) chain(first uint32) ([]uint32, error) {
	var chain []uint32
	for c := first; ; {
		if c < 2 || int64(c) >= v.clusters+2 {
			return chain, fmt.Errorf("its chain leads to cluster %d, which does not exist", c)
		}
		if v.used[c] {
			return chain, fmt.Errorf("its cluster %d belongs to something else, too", c)
		}
		v.used[c] = true
		chain = append(chain, c)
		next := v.next(c)
		switch {
		case next >= endOfChain:
			return chain, nil
		case next == badCluster:
			return chain, fmt.Errorf("its chain leads to a bad cluster after %d", c)
		}
		c = next
	}
}

// Structure compares the copies of the boot sector and of the table, and checks the counts. Each
// problem is one line.
func (v *Volume) Structure() []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !bytes.Equal(v.boot[82:90], []byte("FAT32   ")) || v.boot[0] != 0xeb && v.boot[0] != 0xe9 {
		add("the boot sector does not begin as one of FAT32 does")
	}
	le := binary.LittleEndian
	if media := v.next(0); v.boot[21] < 0xf0 || media != 0x0fffff00|uint32(v.boot[21]) {
		add("the first entry of the allocation table is %#08x, and the medium %#02x", media, v.boot[21])
	}
	if backup := int64(le.Uint16(v.boot[50:])); backup != 0 {
		b := make([]byte, 512)
		if _, err := v.r.ReadAt(b, backup*v.sector); err != nil || !bytes.Equal(b, v.boot) {
			add("the copy of the boot sector in sector %d differs from it", backup)
		}
	}
	second := make([]byte, len(v.table))
	if _, err := v.r.ReadAt(second, v.tableAt+int64(len(v.table))); err != nil {
		add("the second allocation table cannot be read: %v", err)
		return append(problems, v.infoSector()...)
	}
	for at := 0; at < len(second); at += 4 {
		if !bytes.Equal(v.table[at:at+4], second[at:at+4]) {
			add("the two allocation tables differ, first in cluster %d", at/4)
			break
		}
	}
	return append(problems, v.infoSector()...)
}

// infoSector checks FSInfo (section 5) against the table.
func (v *Volume) infoSector() []string {
	le := binary.LittleEndian
	at := int64(le.Uint16(v.boot[48:]))
	b := make([]byte, 512)
	if _, err := v.r.ReadAt(b, at*v.sector); err != nil {
		return []string{fmt.Sprintf("the information sector %d cannot be read: %v", at, err)}
	}
	if string(b[:4]) != "RRaA" || string(b[484:488]) != "rrAa" || le.Uint32(b[508:]) != 0xaa550000 {
		return []string{fmt.Sprintf("sector %d is not the information sector that it should be", at)}
	}
	free := uint32(0)
	for c := int64(2); c < v.clusters+2; c++ {
		if v.next(uint32(c)) == 0 {
			free++
		}
	}
	if said := le.Uint32(b[488:]); said != 0xffffffff && said != free {
		return []string{fmt.Sprintf("the information sector counts %d free clusters, and %d are free", said, free)}
	}
	return nil
}

// lost counts the clusters that are taken and belong to nothing.
func (v *Volume) lost() int {
	n := 0
	for c := int64(2); c < v.clusters+2; c++ {
		if next := v.next(uint32(c)); next != 0 && next != badCluster && !v.used[c] {
			n++
		}
	}
	return n
}

// readCluster reads one cluster.
func (v *Volume) readCluster(c uint32, b []byte) error {
	if _, err := v.r.ReadAt(b, v.dataStart+(int64(c)-2)*v.cluster); err != nil {
		return fmt.Errorf("reading cluster %d: %w", c, err)
	}
	return nil
}
