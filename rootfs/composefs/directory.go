package composefs

import "encoding/binary"

// dirBlocks divides the names of a directory into blocks.
func dirBlocks(names []name) (groups [][]name) {
	begin, used := 0, int64(0)
	for i, x := range names {
		if used+x.cost() > blockSize {
			groups, begin, used = append(groups, names[begin:i]), i, 0
		}
		used += x.cost()
	}
	return append(groups, names[begin:])
}

// dirShape returns the full blocks of a directory, and the bytes behind them.
func dirShape(names []name) (blocks, tail int64) {
	groups := dirBlocks(names)
	for _, x := range groups[len(groups)-1] {
		tail += x.cost()
	}
	if tail > maxTail {
		return int64(len(groups)), 0
	}
	return int64(len(groups) - 1), tail
}

// cost is the bytes of an entry in a block.
func (x name) cost() int64 { return direntSize + int64(len(x.name)) }

// appendDirents appends the entries of one block, and then their names.
func appendDirents(b []byte, names []name) []byte {
	at := direntSize * len(names)
	for _, x := range names {
		b = binary.LittleEndian.AppendUint64(b, x.node.nid)
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, fileTypes[x.node.kind], 0)
		at += len(x.name)
	}
	for _, x := range names {
		b = append(b, x.name...)
	}
	return b
}

// fileTypes are the types in directory entries (linux/fs_types.h).
var fileTypes = map[uint32]byte{
	modeRegular: 1, modeDir: 2, modeChar: 3, modeBlock: 4, modeFifo: 5, modeSocket: 6, modeSymlink: 7,
}
