package kernel

import "encoding/binary"

// anonymousFiles looks at files that are no files, as an fs context. What they are is in the name of
// their directory entry, which all with the same operations share.
func (s *fileSearch) anonymousFiles(files []openFile) ([]found, error) {
	operations, err := s.reader.values(addresses(files), s.files.operations)
	if err != nil {
		return nil, err
	}
	names := map[uint64]string{}
	var list []found
	for i, f := range files {
		name, ok := names[operations[i]]
		if !ok {
			entry, err := s.value(f.at, s.files.entry)
			if err == nil {
				name, err = s.text(entry, s.entry.name)
			}
			if err != nil {
				s.unread[f.owner] = true
				continue
			}
			names[operations[i]] = name
		}
		var holds func(openFile) ([]found, error)
		switch name {
		case "[fscontext]":
			holds = s.heldByContext
		case "[fanotify]":
			holds = s.heldByEvents
		case "[io_uring]":
			holds = s.heldByRing
		default:
			continue
		}
		more, err := holds(f)
		if err != nil {
			s.unread[f.owner] = true
		}
		list = append(list, more...)
	}
	return list, nil
}

// addresses returns the addresses of files.
func addresses(files []openFile) []uint64 {
	list := make([]uint64, len(files))
	for i, f := range files {
		list[i] = f.at
	}
	return list
}

// heldByContext looks at an fs context, which has the root of its file system.
func (s *fileSearch) heldByContext(f openFile) ([]found, error) {
	context, err := s.memory.follow(f.at, s.files.private.offset)
	if err != nil {
		return nil, err
	}
	root, err := s.value(context, s.held.contextRoot)
	if err != nil || root == 0 {
		return nil, err
	}
	super, err := s.value(root, s.entry.superblock)
	if err != nil {
		return nil, err
	}
	if _, ok := s.superblocks[super]; !ok {
		return nil, nil
	}
	return []found{{kind: FSContext, owner: f, mount: super}}, nil
}

// heldByEvents looks at the unread events of a fanotify group, which keep the file that they are
// about.
func (s *fileSearch) heldByEvents(f openFile) ([]found, error) {
	group, err := s.memory.follow(f.at, s.files.private.offset)
	if err != nil {
		return nil, err
	}
	events, err := s.reader.list(group + s.held.events.offset)
	if err != nil {
		return nil, err
	}
	for i := range events {
		events[i] -= s.held.event.offset
	}
	mounts, err := s.reader.values(events, s.held.eventMount)
	if err != nil {
		return nil, err
	}
	for i, m := range mounts {
		if _, ok := s.mounts[m]; ok {
			entry, err := s.value(events[i], s.held.eventEntry)
			return []found{{kind: Fanotify, owner: f, mount: m, entry: entry}}, err
		}
	}
	return nil, nil
}

// heldByRing looks at the files that are registered in an io_uring.
func (s *fileSearch) heldByRing(f openFile) ([]found, error) {
	ring, err := s.memory.follow(f.at, s.files.private.offset)
	if err != nil {
		return nil, err
	}
	count, err := s.value(ring, s.held.ringCount)
	if err == nil && count > mostOpen {
		err = errChanged
	}
	if err != nil || count == 0 {
		return nil, err
	}
	slots, err := s.value(ring, s.held.ringFiles)
	if err != nil || slots == 0 {
		return nil, err
	}
	var at []uint64
	for n := range count {
		at = append(at, slots+pointerSize*n)
	}
	files, err := s.reader.values(at, field{size: pointerSize})
	if err != nil {
		return nil, err
	}
	if s.held.ringFile.size > 0 { // each slot leads to a node
		if files, err = s.reader.values(files, s.held.ringFile); err != nil {
			return nil, err
		}
	}
	for i := range files {
		files[i] &^= pointerSize - 1 // flags
	}
	return s.heldFiles(IOUring, f, files)
}

// heldFiles returns those of some files, which another one holds, that are on a mount that is
// wanted.
func (s *fileSearch) heldFiles(kind Kind, by openFile, files []uint64) ([]found, error) {
	mounts, err := s.reader.values(files, s.files.mount)
	if err != nil {
		return nil, err
	}
	var list []found
	for i, m := range mounts {
		if _, ok := s.mounts[m]; ok && files[i] != 0 {
			entry, err := s.value(files[i], s.files.entry)
			if err != nil {
				return nil, err
			}
			list = append(list, found{kind: kind, owner: by, mount: m, entry: entry})
		}
	}
	return list, nil
}

// sockets looks at unix sockets: the name that one is bound to, and the files under way to it.
func (s *fileSearch) sockets(files []openFile) ([]found, error) {
	owners, at, err := s.unixSockets(files)
	if err != nil {
		return nil, err
	}
	if err := s.noteInodes(owners); err != nil {
		return nil, err
	}
	names, err := s.reader.values(at, s.socket.nameMount)
	if err != nil {
		return nil, err
	}
	queued, err := s.reader.values(at, s.socket.queued)
	if err != nil {
		return nil, err
	}
	var list []found
	for i, m := range names {
		if _, ok := s.mounts[m]; ok {
			entry, err := s.value(at[i], s.socket.nameEntry)
			if err != nil {
				return nil, err
			}
			list = append(list, found{kind: UnixSocket, owner: owners[i], mount: m, entry: entry})
		}
		if queued[i] == 0 {
			continue
		}
		more, err := s.underWay(owners[i], at[i])
		if err != nil {
			s.unread[owners[i].owner] = true
		}
		list = append(list, more...)
	}
	return list, nil
}

// noteInodes remembers the inodes of sockets.
func (s *fileSearch) noteInodes(sockets []openFile) error {
	inodes, err := s.reader.values(addresses(sockets), s.files.inode)
	if err != nil {
		return err
	}
	numbers, err := s.reader.values(inodes, s.files.number)
	for _, n := range numbers {
		s.inodes[n] = true
	}
	return err
}

// unixSockets returns those of some files that are unix sockets, and the address of each socket.
func (s *fileSearch) unixSockets(files []openFile) (owners []openFile, at []uint64, err error) {
	outer, err := s.reader.values(addresses(files), s.files.private)
	if err != nil {
		return nil, nil, err
	}
	sockets, err := s.reader.values(outer, s.socket.inner)
	if err != nil {
		return nil, nil, err
	}
	families, err := s.reader.values(sockets, s.socket.family)
	if err != nil {
		return nil, nil, err
	}
	const unixFamily = 1 // AF_UNIX
	for i, family := range families {
		if sockets[i] != 0 && family == unixFamily {
			owners, at = append(owners, files[i]), append(at, sockets[i])
		}
	}
	return owners, at, nil
}

// underWay returns the files that are under way to a socket. Sockets may be among them, which have
// files under way too, as have the connections that a listening socket has not accepted.
func (s *fileSearch) underWay(owner openFile, socket uint64) ([]found, error) {
	const listening = 10 // TCP_LISTEN, also of unix sockets
	var list []found
	seen := map[uint64]bool{}
	for todo := []uint64{socket}; len(todo) > 0; {
		if len(seen) == mostPlaces {
			return list, errChanged
		}
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		if len(seen) > 1 { // it is under way itself, or waits to be accepted
			if hit, ok, err := s.named(owner, at); err != nil {
				return list, err
			} else if ok {
				list = append(list, hit)
			}
		}
		messages, err := s.reader.list(at + s.socket.queue.offset)
		if err != nil {
			return list, err
		}
		state, err := s.value(at, s.socket.state)
		if err != nil {
			return list, err
		}
		if state == listening {
			waiting, err := s.reader.values(messages, s.socket.sender)
			if err != nil {
				return list, err
			}
			todo = append(todo, waiting...)
			continue
		}
		files, err := s.passed(messages)
		if err != nil {
			return list, err
		}
		hits, err := s.heldFiles(InFlight, owner, files)
		if err != nil {
			return list, err
		}
		list = append(list, hits...)
		more, err := s.socketsAmong(files)
		if err != nil {
			return list, err
		}
		todo = append(todo, more...)
	}
	return list, nil
}

// socketsAmong returns the unix sockets among some files.
func (s *fileSearch) socketsAmong(files []uint64) ([]uint64, error) {
	mounts, err := s.reader.values(files, s.files.mount)
	if err != nil {
		return nil, err
	}
	var inner []openFile
	for i, m := range mounts {
		if m == s.examples.sockets {
			inner = append(inner, openFile{at: files[i]})
		}
	}
	_, sockets, err := s.unixSockets(inner)
	return sockets, err
}

// named looks at the name of a socket that no process has open.
func (s *fileSearch) named(owner openFile, at uint64) (hit found, ok bool, err error) {
	m, err := s.value(at, s.socket.nameMount)
	if err != nil {
		return hit, false, err
	}
	if _, ok = s.mounts[m]; !ok {
		return hit, false, nil
	}
	entry, err := s.value(at, s.socket.nameEntry)
	return found{kind: InFlight, owner: owner, mount: m, entry: entry}, err == nil, err
}

// passed returns the files that messages carry.
func (s *fileSearch) passed(messages []uint64) ([]uint64, error) {
	const most = 253 // SCM_MAX_FD
	lists, err := s.reader.values(messages, s.socket.passed)
	if err != nil {
		return nil, err
	}
	counts, err := s.reader.values(lists, s.socket.passedCount)
	if err != nil {
		return nil, err
	}
	var at []uint64
	for i, list := range lists {
		if counts[i] > most {
			return nil, errChanged
		}
		for n := range counts[i] {
			if list != 0 {
				at = append(at, list+s.socket.passedFiles.offset+pointerSize*n)
			}
		}
	}
	var files []uint64
	err = s.reader.each(at, 0, pointerSize, func(_ int, block []byte) {
		if block != nil {
			files = append(files, binary.NativeEndian.Uint64(block))
		}
	})
	return files, err
}
