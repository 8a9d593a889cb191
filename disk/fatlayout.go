package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

// Positions in a FAT32 volume, in sectors (Microsoft FAT specification, sections 3.3 and 5). The
// FAT writer always uses these.
const (
	reservedSectors  = 32
	infoSector       = 1
	backupBootSector = 6
)

// fatGeometry is where things are in a FAT32 volume, in bytes from its start.
type fatGeometry struct {
	fatStart  int64 // first allocation table
	fatSize   int64 // of one of the two
	dataStart int64 // cluster 2
	cluster   int64 // bytes in a cluster
	clusters  int64 // how many there are
}

// fatGeometryFor computes the geometry of a volume as the FAT writer does, so that a plan can be
// judged before anything is written.
func fatGeometryFor(size int64, sector int) fatGeometry {
	s := int64(sector)
	perCluster := max(fatClusterBytes(size)/s, 1)
	entryDenominator := s*perCluster + 8
	fatSectors := (4*(size/s-reservedSectors) + entryDenominator - 1) / entryDenominator
	g := fatGeometry{fatStart: reservedSectors * s, fatSize: fatSectors * s, cluster: perCluster * s}
	g.dataStart = g.fatStart + 2*g.fatSize
	g.clusters = max((size/s-g.dataStart/s)/perCluster, 0)
	return g
}

// fatClusterBytes is the usual cluster size by volume size (the table of Microsoft's format and of
// mkfs.fat).
func fatClusterBytes(size int64) int64 {
	switch {
	case size <= 260*mib:
		return 512
	case size <= 8*1024*mib:
		return 4096
	case size <= 16*1024*mib:
		return 8192
	case size <= 32*1024*mib:
		return 16384
	}
	return 32768
}

// geometryOf reads the geometry from a boot sector (Microsoft FAT specification, section 3.1 to
// 3.3).
func geometryOf(b []byte) fatGeometry {
	le := binary.LittleEndian
	sector := int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	g := fatGeometry{
		fatStart: int64(le.Uint16(b[14:])) * sector,
		fatSize:  int64(le.Uint32(b[36:])) * sector,
		cluster:  perCluster * sector,
	}
	g.dataStart = g.fatStart + int64(b[16])*g.fatSize
	if g.cluster > 0 {
		g.clusters = (int64(le.Uint32(b[32:]))*sector - g.dataStart) / g.cluster
	}
	return g
}

// serialOf derives the volume's serial number from the partition's identifier, so that it needs no
// clock and repeats when the identifiers do.
func serialOf(partUUID string) (uint32, error) {
	id, err := uuid.Parse(partUUID)
	if err != nil {
		return 0, fmt.Errorf("partition identifier %q: %w", partUUID, err)
	}
	return binary.BigEndian.Uint32(id[:4]), nil
}

// free counts the free clusters and finds the first, in the table that is kept in memory.
func (f *FAT) free() (count int64, first uint32) {
	table := f.store.front[f.geo.fatStart : f.geo.fatStart+f.geo.fatSize]
	for c := f.geo.clusters + 1; c >= 2; c-- {
		if binary.LittleEndian.Uint32(table[4*c:]) == 0 {
			count, first = count+1, uint32(c)
		}
	}
	return count, first
}

// room makes sure that some clusters are free, and one more by which the directory may have to
// grow: the writer itself does not know where the volume ends.
func (f *FAT) room(name string, clusters int64) error {
	if have, _ := f.free(); have < clusters+1 {
		return &NoSpaceError{Path: name, Need: (clusters + 1) * f.geo.cluster, Free: have * f.geo.cluster}
	}
	return nil
}

// writeInfo records the free clusters in the FSInfo sector and its copy, which the writer leaves
// unknown (Microsoft FAT specification, section 5).
func (f *FAT) writeInfo() {
	const freeCount, nextFree = 488, 492
	sector := int64(f.store.disk.sector)
	count, first := f.free()
	for _, at := range []int64{infoSector * sector, (backupBootSector + infoSector) * sector} {
		binary.LittleEndian.PutUint32(f.store.front[at+freeCount:], uint32(count))
		if first != 0 {
			binary.LittleEndian.PutUint32(f.store.front[at+nextFree:], first)
		}
	}
}
