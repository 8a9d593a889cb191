package kernel

// search looks for the uses of file systems.
type search struct {
	*tables
	wanted
	examples  examples
	unsettled map[thread]bool // threads that changed each time that they were read
	inodes    map[uint64]bool // of all unix sockets
}

func (s *search) changed(t thread) { s.unsettled[t] = true }

// among looks at threads. What the threads of a process share is looked at once.
func (s *search) among(threads []thread) ([]found, error) {
	type shared struct {
		process int
		at      uint64
	}
	seen := map[shared]bool{}
	once := func(t thread, at uint64) bool {
		key := shared{t.process, at}
		first := at != 0 && !seen[key]
		seen[key] = true
		return first
	}
	var files, fs, spaces, namespaces []thread
	for _, t := range threads {
		if once(t, t.files) {
			files = append(files, t)
		}
		if once(t, t.fs) {
			fs = append(fs, t)
		}
		if once(t, t.space) {
			spaces = append(spaces, t)
		}
		if once(t, t.namespaces) {
			namespaces = append(namespaces, t)
		}
	}
	var list []found
	for _, part := range []struct {
		threads []thread
		search  func([]thread) ([]found, error)
	}{{fs, s.places}, {files, s.openFiles}, {spaces, s.mappings}, {spaces, s.programs}, {namespaces, s.members}} {
		more, err := part.search(part.threads)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func column(threads []thread, f func(thread) uint64) []uint64 {
	list := make([]uint64, len(threads))
	for i, t := range threads {
		list[i] = f(t)
	}
	return list
}

// places looks at working and root directories.
func (s *search) places(threads []thread) ([]found, error) {
	at := column(threads, func(t thread) uint64 { return t.fs })
	var list []found
	for _, place := range []struct {
		kind         Kind
		mount, entry field
	}{{Cwd, s.fs.cwd, s.fs.cwdEntry}, {Root, s.fs.root, s.fs.rootEntry}} {
		mounts, err := s.reader.values(at, place.mount)
		if err != nil {
			return nil, err
		}
		for i, m := range mounts {
			if _, ok := s.mounts[m]; !ok {
				continue
			}
			entry, err := s.value(at[i], place.entry)
			if err != nil {
				s.changed(threads[i])
				continue
			}
			list = append(list, found{kind: place.kind, thread: threads[i], mount: m, entry: entry})
		}
	}
	return list, nil
}

// programs looks at the programs that run.
func (s *search) programs(threads []thread) ([]found, error) {
	files, err := s.reader.values(column(threads, func(t thread) uint64 { return t.space }), s.space.program)
	if err != nil {
		return nil, err
	}
	return s.filesOnMounts(Exe, threads, files)
}

// filesOnMounts returns those of some files, each of a thread, that are on a mount that is wanted.
func (s *search) filesOnMounts(kind Kind, threads []thread, files []uint64) ([]found, error) {
	mounts, err := s.reader.values(files, s.files.mount)
	if err != nil {
		return nil, err
	}
	var list []found
	for i, m := range mounts {
		if _, ok := s.mounts[m]; !ok {
			continue
		}
		entry, err := s.value(files[i], s.files.entry)
		if err != nil {
			s.changed(threads[i])
			continue
		}
		list = append(list, found{kind: kind, thread: threads[i], mount: m, entry: entry})
	}
	return list, nil
}

// members looks at the namespaces that threads are in.
func (s *search) members(threads []thread) ([]found, error) {
	if len(s.namespaces) == 0 {
		return nil, nil
	}
	namespaces, err := s.reader.values(column(threads, func(t thread) uint64 { return t.namespaces }), s.task.mountNamespace)
	if err != nil {
		return nil, err
	}
	var list []found
	for i, n := range namespaces {
		if _, ok := s.namespaces[n]; ok {
			list = append(list, found{kind: Namespace, thread: threads[i], mount: n})
		}
	}
	return list, nil
}
