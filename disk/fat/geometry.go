package fat

import (
	"encoding/binary"
)

// Positions in a FAT32 volume, in sectors (Microsoft FAT specification, sections 3.3 and 5). The
// library always uses these.
const (
	reservedSectors  = 32
	infoSector       = 1
	BackupBootSector = 6
)

const mib = 1 << 20

// Geometry is where things are in a new volume, in bytes from its start.
type Geometry struct {
	TableStart int64 // first allocation table
	TableSize  int64 // of one of the two
	DataStart  int64 // cluster 2
	Cluster    int64 // bytes in a cluster
	Clusters   int64 // how many there are
}

// Plan computes the geometry of a volume as the library does, so that it can be judged before
// anything is written.
func Plan(size int64, sector int) Geometry {
	s := int64(sector)
	perCluster := max(clusterBytes(size)/s, 1)
	entryDenominator := s*perCluster + 8
	tableSectors := (4*(size/s-reservedSectors) + entryDenominator - 1) / entryDenominator
	g := Geometry{TableStart: reservedSectors * s, TableSize: tableSectors * s, Cluster: perCluster * s}
	g.DataStart = g.TableStart + 2*g.TableSize
	g.Clusters = max((size/s-g.DataStart/s)/perCluster, 0)
	return g
}

// IsFAT32 reports whether a volume has clusters enough; with fewer it is FAT16.
func (g Geometry) IsFAT32() bool { return g.Clusters >= leastClusters }

// Smallest returns the least size of a volume, in whole MiB.
func Smallest(sector int) int64 {
	size := int64(mib)
	for !Plan(size, sector).IsFAT32() {
		size += mib
	}
	return size
}

// clusterBytes is the usual cluster size by volume size (the table of Microsoft's format and of
// mkfs.fat).
func clusterBytes(size int64) int64 {
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
func geometryOf(b []byte) Geometry {
	le := binary.LittleEndian
	sector := int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	g := Geometry{
		TableStart: int64(le.Uint16(b[14:])) * sector,
		TableSize:  int64(le.Uint32(b[36:])) * sector,
		Cluster:    perCluster * sector,
	}
	g.DataStart = g.TableStart + int64(b[16])*g.TableSize
	if g.Cluster > 0 {
		g.Clusters = (int64(le.Uint32(b[32:]))*sector - g.DataStart) / g.Cluster
	}
	return g
}

// free counts the free clusters and finds the first, in the table that is kept in memory.
func (w *Writer) free() (count int64, first uint32) {
	table := w.store.front[w.geo.TableStart : w.geo.TableStart+w.geo.TableSize]
	for c := w.geo.Clusters + 1; c >= 2; c-- {
		if binary.LittleEndian.Uint32(table[4*c:]) == 0 {
			count, first = count+1, uint32(c)
		}
	}
	return count, first
}

// room makes sure that some clusters are free, and one more by which the directory may have to
// grow: the library does not know where the volume ends.
func (w *Writer) room(name string, clusters int64) error {
	if have, _ := w.free(); have < clusters+1 {
		return &NoSpaceError{Path: name, Need: (clusters + 1) * w.geo.Cluster, Free: have * w.geo.Cluster}
	}
	return nil
}

// writeInfo records the free clusters in the FSInfo sector and its copy, which the library leaves
// unknown (Microsoft FAT specification, section 5).
func (w *Writer) writeInfo() {
	const freeCount, nextFree = 488, 492
	sector := int64(w.o.Sector)
	count, first := w.free()
	for _, at := range []int64{infoSector * sector, (BackupBootSector + infoSector) * sector} {
		binary.LittleEndian.PutUint32(w.store.front[at+freeCount:], uint32(count))
		if first != 0 {
			binary.LittleEndian.PutUint32(w.store.front[at+nextFree:], first)
		}
	}
}
