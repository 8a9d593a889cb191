package kernel

import "encoding/binary"

// openFile is an entry of a table of open files.
type openFile struct {
	owner, fd int // owner is the index of the thread
	at        uint64
}

const (
	pointerSize = 8
	// mostOpen bounds a table, as the kernel does: sysctl_nr_open_max.
	mostOpen = 1 << 27
)

// fileSearch looks at the open files of some threads.
type fileSearch struct {
	*search
	threads []thread
	unread  map[int]bool // the index of those with a file that could not be read
}

// openFiles looks at the open files of threads.
func (s *search) openFiles(threads []thread) ([]found, error) {
	return inParts(threads, func(part []thread) ([]found, error) {
		f := &fileSearch{search: s, threads: part, unread: map[int]bool{}}
		return f.find()
	})
}

func (s *fileSearch) find() ([]found, error) {
	files, err := s.fileTables()
	if err != nil {
		return nil, err
	}
	mounts, err := s.reader.values(addresses(files), s.files.mount)
	if err != nil {
		return nil, err
	}
	var list []found
	special := map[uint64][]openFile{s.examples.anonymous: nil, s.examples.namespaces: nil, s.examples.sockets: nil}
	for i, m := range mounts {
		f := files[i]
		if _, ok := special[m]; ok {
			special[m] = append(special[m], f)
			continue
		}
		if _, ok := s.mounts[m]; !ok {
			continue
		}
		entry, err := s.value(f.at, s.files.entry)
		if err != nil {
			s.unread[f.owner] = true
			continue
		}
		list = append(list, found{kind: FD, owner: f, mount: m, entry: entry})
	}
	for _, part := range []struct {
		mount uint64
		look  func([]openFile) ([]found, error)
	}{{s.examples.anonymous, s.anonymousFiles}, {s.examples.namespaces, s.namespaceFiles}, {s.examples.sockets, s.sockets}} {
		more, err := part.look(special[part.mount])
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	for i := range s.unread {
		s.changed(s.threads[i])
	}
	for i := range list {
		list[i].thread = s.threads[list[i].owner.owner]
		list[i].owner.owner = 0 // the index says nothing elsewhere
	}
	return list, nil
}

// namespaceFiles looks at files that stand for a namespace.
func (s *fileSearch) namespaceFiles(files []openFile) ([]found, error) {
	if len(s.namespaces) == 0 {
		return nil, nil
	}
	inodes, err := s.reader.values(addresses(files), s.files.inode)
	if err != nil {
		return nil, err
	}
	objects, err := s.reader.values(inodes, s.files.object)
	if err != nil {
		return nil, err
	}
	var list []found
	for i, object := range objects {
		object -= s.common.offset
		if _, ok := s.namespaces[object]; ok {
			list = append(list, found{kind: Namespace, owner: files[i], mount: object})
		}
	}
	return list, nil
}

// fileTables reads the tables of open files. A table that is replaced by a larger one
// meanwhile is read again.
func (s *fileSearch) fileTables() ([]openFile, error) {
	var all []openFile
	todo := make([]int, len(s.threads))
	for i := range todo {
		todo[i] = i
	}
	for range rounds {
		files, changed, err := s.readTables(todo)
		if err != nil {
			return nil, err
		}
		if all = append(all, files...); len(changed) == 0 {
			return all, nil
		}
		todo = changed
	}
	for _, i := range todo {
		s.unread[i] = true
	}
	return all, nil
}

// readTables reads the tables of some of the threads, and returns those that changed meanwhile.
func (s *fileSearch) readTables(which []int) (all []openFile, changed []int, err error) {
	at := make([]uint64, len(which))
	for n, i := range which {
		at[n] = s.threads[i].files
	}
	tables, err := s.reader.values(at, s.files.table)
	if err != nil {
		return nil, nil, err
	}
	sizes, err := s.reader.values(tables, s.files.most)
	if err != nil {
		return nil, nil, err
	}
	lists, err := s.reader.values(tables, s.files.list)
	if err != nil {
		return nil, nil, err
	}
	type part struct{ n, fd int }
	var parts []part
	var blocks []uint64
	const step = mostBlock / pointerSize
	for n, list := range lists {
		for fd := 0; fd < int(sizes[n]) && list != 0 && sizes[n] <= mostOpen; fd += step {
			parts, blocks = append(parts, part{n, fd}), append(blocks, list+uint64(pointerSize*fd))
		}
	}
	broken := map[int]bool{}
	err = s.reader.each(blocks, 0, mostBlock, func(i int, block []byte) {
		p := parts[i]
		broken[p.n] = broken[p.n] || block == nil
		for j := 0; j < len(block); j += pointerSize {
			if file := binary.NativeEndian.Uint64(block[j:]); file != 0 {
				all = append(all, openFile{which[p.n], p.fd + j/pointerSize, file})
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	again, err := s.reader.values(at, s.files.table)
	for n := range again {
		if broken[n] || again[n] != tables[n] {
			changed = append(changed, which[n])
		}
	}
	return without(all, changed), changed, err
}

// without drops the files of some owners.
func without(all []openFile, owners []int) []openFile {
	if len(owners) == 0 {
		return all
	}
	drop := map[int]bool{}
	for _, i := range owners {
		drop[i] = true
	}
	kept := all[:0]
	for _, f := range all {
		if !drop[f.owner] {
			kept = append(kept, f)
		}
	}
	return kept
}
