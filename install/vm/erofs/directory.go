package erofs

import (
	"encoding/binary"
	"slices"

	"installer/rootfs/image"
)

// direntSize is that of struct erofs_dirent: the inode's number (8 bytes),
// the name's offset in the block (2), the file type (1), one reserved.
const direntSize = 12

// File types of directory entries (linux/fs_types.h).
const (
	typeRegular   = 1
	typeDirectory = 2
	typeSymlink   = 7
)

// entryNames lists a directory's entries in byte order.
func entryNames(dir *image.Node) []string {
	names := append(dir.Names(), ".", "..")
	slices.Sort(names)
	return names
}

// splitBlocks calls fn with the names that each block of a directory holds.
// Every block is on its own: entries first, then their names.
func splitBlocks(names []string, fn func(names []string, used int64)) {
	for len(names) > 0 {
		used, n := 0, 0
		for n < len(names) && used+direntSize+len(names[n]) <= blockSize {
			used += direntSize + len(names[n])
			n++
		}
		fn(names[:n], int64(used))
		names = names[n:]
	}
}

// directorySize returns the bytes of a directory: whole blocks, and the used part of the last one.
func directorySize(names []string) int64 {
	var blocks, last int64
	splitBlocks(names, func(_ []string, used int64) {
		blocks++
		last = used
	})
	return (blocks-1)*blockSize + last
}

// encodeDirectory gives the blocks of a directory, the last one filled up with zeros.
func (l *layout) encodeDirectory(dir *inode) []byte {
	var out []byte
	splitBlocks(dir.names, func(names []string, _ int64) {
		block := make([]byte, blockSize)
		at := len(names) * direntSize
		for k, name := range names {
			nid, kind := l.entry(dir, name)
			dirent := block[k*direntSize:]
			binary.LittleEndian.PutUint64(dirent, nid)
			binary.LittleEndian.PutUint16(dirent[8:], uint16(at))
			dirent[10] = kind
			at += copy(block[at:], name)
		}
		out = append(out, block...)
	})
	return out
}

// entry is a name in a directory, with its inode.
func (l *layout) entry(dir *inode, name string) (nid uint64, kind byte) {
	switch name {
	case ".":
		return dir.nid, typeDirectory
	case "..":
		return dir.parent.nid, typeDirectory
	}
	child := l.known[dir.node.Children[name]]
	switch {
	case child.node.IsDir():
		kind = typeDirectory
	case child.node.IsSymlink():
		kind = typeSymlink
	default:
		kind = typeRegular
	}
	return child.nid, kind
}
