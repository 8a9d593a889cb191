package kernel

import (
	"encoding/binary"
	"slices"
)

// Kinds of nodes of a maple tree, enum maple_type of linux/maple_tree.h, which the address of a node
// has in its lower bits.
const (
	nodeKindShift = 3
	nodeKindMask  = 0xf
	nodeMask      = 0xff
	nodeSize      = 256
	nodeLeaf      = 1 // maple_leaf_64
	nodeInner     = 3 // maple_arange_64
	mostDepth     = 31
)

// node is a node of the maple tree of an address space; limit is the last address that it has.
type node struct {
	owner     int
	at, limit uint64
}

// mapping is a mapping of a thread's address space.
type mapping struct {
	owner int
	at    uint64
}

// mappings looks at mapped files.
func (s *search) mappings(threads []thread) ([]found, error) {
	return inParts(threads, func(part []thread) ([]found, error) { return s.mappingsOf(part) })
}

// partSize is how many threads are looked at together: what is read of them is in memory at a time.
const partSize = 256

func inParts(threads []thread, search func([]thread) ([]found, error)) ([]found, error) {
	var list []found
	for part := range slices.Chunk(threads, partSize) {
		more, err := search(part)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func (s *search) mappingsOf(threads []thread) ([]found, error) {
	todo := make([]int, len(threads))
	for i := range todo {
		todo[i] = i
	}
	var list []found
	for range rounds {
		more, changed, err := s.readSpaces(threads, todo)
		if err != nil {
			return nil, err
		}
		if list = append(list, more...); len(changed) == 0 {
			return list, nil
		}
		todo = changed
	}
	for _, i := range todo {
		s.changed(threads[i])
	}
	return list, nil
}

// readSpaces looks at the address spaces of some of the threads, and returns those that changed
// meanwhile: there are as many mappings as the kernel counts.
func (s *search) readSpaces(threads []thread, which []int) (list []found, changed []int, err error) {
	spaces := make([]uint64, len(which))
	for n, i := range which {
		spaces[n] = threads[i].space
	}
	maps, err := s.tree(spaces)
	if err != nil {
		return nil, nil, err
	}
	files, seen, err := s.mappedFiles(spaces, maps)
	if err != nil {
		return nil, nil, err
	}
	counts, err := s.reader.values(spaces, s.space.count)
	if err != nil {
		return nil, nil, err
	}
	for n, count := range counts {
		if int(count) != seen[n] {
			changed = append(changed, which[n])
		}
	}
	at, owners := make([]uint64, len(files)), make([]thread, len(files))
	for i, f := range files {
		at[i], owners[i] = f.at, threads[which[f.owner]]
	}
	hits, err := s.filesOnMounts(Map, owners, at)
	if err != nil {
		return nil, nil, err
	}
	merged := map[found]bool{}
	for _, f := range hits {
		if !merged[f] {
			merged[f] = true
			list = append(list, f)
		}
	}
	return list, changed, nil
}

// mappedFiles returns the file of each mapping that has one, and the number of mappings of each
// space. A file that is mapped several times in a row is there once.
func (s *search) mappedFiles(spaces []uint64, maps []mapping) (files []mapping, seen []int, err error) {
	at := make([]uint64, len(maps))
	for i, m := range maps {
		at[i] = m.at
	}
	owner, file := s.space.owner.offset, s.space.file.offset
	begin := min(owner, file)
	size := int(max(owner, file) - begin + pointerSize)
	seen = make([]int, len(spaces))
	var last mapping
	err = s.reader.each(at, begin, size, func(i int, block []byte) {
		m := maps[i]
		if block == nil || binary.NativeEndian.Uint64(block[owner-begin:]) != spaces[m.owner] {
			return // not a mapping any more
		}
		seen[m.owner]++
		f := mapping{m.owner, binary.NativeEndian.Uint64(block[file-begin:])}
		if f.at != 0 && f != last {
			files, last = append(files, f), f
		}
	})
	return files, seen, err
}

// tree returns the mappings of address spaces.
func (s *search) tree(spaces []uint64) ([]mapping, error) {
	if s.space.tree.size == 0 {
		return s.mappingList(spaces)
	}
	roots, err := s.reader.values(spaces, s.space.tree)
	if err != nil {
		return nil, err
	}
	var nodes []node
	for i, root := range roots {
		nodes = append(nodes, node{i, root, ^uint64(0)})
	}
	var maps []mapping
	for range mostDepth {
		var at []uint64
		kept := nodes[:0]
		for _, n := range nodes {
			if kind := n.kind(); kind == nodeLeaf || kind == nodeInner {
				kept, at = append(kept, n), append(at, n.at&^nodeMask)
			}
		}
		if nodes = kept; len(nodes) == 0 {
			return maps, nil
		}
		var inner []node
		err := s.reader.each(at, 0, nodeSize, func(i int, block []byte) {
			if block == nil {
				return
			}
			if n := nodes[i]; n.kind() == nodeInner {
				n.slots(block, s.space.bounds, s.space.innerTree, func(slot, limit uint64) { inner = append(inner, node{n.owner, slot, limit}) })
			} else {
				n.slots(block, s.space.leafBounds, s.space.leaves, func(slot, _ uint64) { maps = append(maps, mapping{n.owner, slot}) })
			}
		})
		if err != nil {
			return nil, err
		}
		nodes = inner
	}
	return nil, errChanged
}

func (n node) kind() uint64 { return n.at >> nodeKindShift & nodeKindMask }

// slots visits what a node has, up to its limit: each bound is the last address of a slot.
func (n node) slots(block []byte, bounds, slots field, visit func(slot, limit uint64)) {
	word := func(f field, i int) uint64 { return binary.NativeEndian.Uint64(block[int(f.offset)+pointerSize*i:]) }
	for i := range slots.size / pointerSize {
		limit := n.limit
		if i < bounds.size/pointerSize {
			if bound := word(bounds, i); bound != 0 {
				limit = min(bound, limit)
			}
		}
		if slot := word(slots, i); slot != 0 {
			visit(slot, limit)
		}
		if limit == n.limit {
			return
		}
	}
}

// mappingList is tree for kernels before Linux 6.1, whose mappings are in a list.
func (s *search) mappingList(spaces []uint64) ([]mapping, error) {
	next, err := s.reader.values(spaces, s.space.first)
	if err != nil {
		return nil, err
	}
	owners := make([]int, len(spaces))
	for i := range owners {
		owners[i] = i
	}
	var maps []mapping
	for range mostListed {
		var at []uint64
		var left []int
		for i, m := range next {
			if m != 0 {
				at, left, maps = append(at, m), append(left, owners[i]), append(maps, mapping{owners[i], m})
			}
		}
		if len(at) == 0 {
			return maps, nil
		}
		owners = left
		if next, err = s.reader.values(at, s.space.next); err != nil {
			return nil, err
		}
	}
	return nil, errChanged
}
