package holders

import (
	"context"
	"maps"
	"slices"
)

// ScanSelf looks at this process and its descendants alone: their open files, mappings, places,
// programs, of every thread, and whether one of them is in another mount namespace that holds a
// mount of the target.
func ScanSelf(ctx context.Context, target Target) (Report, error) {
	s, err := newScan(ctx, target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	clear(s.failures) // failures of other processes are not asked for
	members := slices.Sorted(maps.Keys(s.family))
	s.processes = len(members)
	if err := s.inspect(ctx, members); err != nil {
		return Report{}, err
	}
	s.dropSuspects() // a suspect is no proof against this process
	for _, ns := range s.snapshot.Namespaces {
		if s.holdsForeign(ns) {
			s.add(s.keptByProcesses(ns)...)
		}
	}
	r := s.report([]Class{FD, Map, Cwd, Root, Exe, DetachedMount, Fanotify, InFlight, IOUring, Namespace})
	r.UnownedSockets = 0              // they were not looked for
	r.Unseen, r.Unreadable = nil, nil // the namespaces of others are not the question
	s.snapshot.Unreadable, s.snapshot.Unlisted = nil, nil
	r.unseen(s.unseen()...)
	r.judge()
	return r, nil
}

func (s *scan) dropSuspects() {
	s.holders = slices.DeleteFunc(s.holders, func(h Holder) bool { return h.Suspect })
}
