package holders

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// probe looks for the holders of some classes.
type probe struct {
	classes []Class
	find    func(context.Context, *scan) error
}

// probes are all searches, in the order in which they run: who is in which namespace, and has which
// socket, is known when the processes have been walked.
func probes() []probe {
	return []probe{
		{[]Class{UnixSocket}, findBoundSockets},
		{[]Class{FD, Map, Cwd, Root, Exe, DetachedMount, Fanotify, InFlight, IOUring, FSContext}, findInProcesses},
		{[]Class{UnixSocket}, findForeignSockets},
		{[]Class{MountClass}, findMounts},
		{[]Class{Namespace}, findNamespaces},
		{[]Class{Loop}, findLoops},
		{[]Class{Swap}, findSwaps},
		{[]Class{Overlay}, findOverlays},
		{[]Class{FileImage}, findFileImages},
		{[]Class{Binfmt}, findBinfmt},
		{[]Class{Uprobe}, findUprobes},
	}
}

// scan is the state of one search. Its fields are filled before the workers start, or guarded by
// mu.
type scan struct {
	target   Target
	snapshot *mounts.Snapshot
	proc     int // /proc, as a place
	own      map[int]bool
	known    map[int]mounts.DevNum // every mount of every namespace
	held     map[int]bool          // the mounts that are on the target
	remote   map[uint64][]string   // mount points of network file systems, by namespace inode
	family   map[int]bool          // this process and its descendants
	foreign  map[uint64]bool       // inodes of the other namespaces that hold a mount of the target
	holding  map[uint64]bool       // inodes of all namespaces that do, the own one included
	internal internalMounts
	sockets  map[uint64]boundSocket // sockets with a name on the target, by inode

	btrfs       []*btrfs               // those of the target
	superblocks map[mounts.DevNum]bool // of every mount
	hidden      bool                   // one of them has no mount, so that the number of its superblock is not known
	oldKernel   bool                   // see ofBtrfs

	mu          sync.Mutex
	holders     []Holder
	keepers     map[uint64][]keeper // who keeps a foreign namespace, by inode
	failures    map[failureKey]*Unseen
	listed      []uint64 // inodes of all unix sockets
	networks    networks
	socketUses  []socketUse     // all open sockets
	seenSockets map[uint64]bool // those of sockets that a process has open
	processes   int
	openSockets []uint64 // inodes of those that the kernel's tables have
	unused      bool     // the kernel's tables count no reference, so that no process was looked at
	openView    func() (*kernel.View, error)
	source      Source
	fallback    string
}

// Scan looks for whatever keeps the target alive, in every process and every mount namespace that
// the caller can see. Everything that it could not see is in the report.
func Scan(ctx context.Context, target Target) (Report, error) {
	s, err := newScan(ctx, target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	report, err := s.search(ctx)
	if err != nil {
		return Report{}, err
	}
	return report, s.settle(ctx, &report)
}

// search makes all searches.
func (s *scan) search(ctx context.Context) (Report, error) {
	var searched []Class
	for _, p := range probes() {
		if err := p.find(ctx, s); err != nil {
			return Report{}, err
		}
		for _, class := range p.classes {
			if !slices.Contains(searched, class) {
				searched = append(searched, class)
			}
		}
	}
	return s.report(searched), nil
}

func newScan(ctx context.Context, target Target) (*scan, error) {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return nil, err
	}
	s := &scan{
		target: target, snapshot: snapshot, openView: kernel.OpenView,
		own: map[int]bool{}, superblocks: map[mounts.DevNum]bool{}, known: map[int]mounts.DevNum{}, held: map[int]bool{},
		remote: map[uint64][]string{}, foreign: map[uint64]bool{}, holding: map[uint64]bool{},
		sockets: map[uint64]boundSocket{}, seenSockets: map[uint64]bool{}, networks: networks{opened: map[string]int{}, lost: map[string]string{}}, keepers: map[uint64][]keeper{}, failures: map[failureKey]*Unseen{},
	}
	s.index()
	if err := s.findBtrfs(); err != nil {
		return nil, err
	}
	if s.family, err = family(os.Getpid()); err != nil {
		return nil, err
	}
	if s.internal, err = findInternalMounts(); err != nil {
		return nil, err
	}
	s.noteLimits()
	s.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /proc (is it mounted?): %w", err)
	}
	return s, nil
}

func (s *scan) close() {
	unix.Close(s.proc)
	s.networks.close()
}

// index sorts the mounts of all namespaces by their relation to the target.
func (s *scan) index() {
	for _, id := range s.target.Mounts {
		s.own[id], s.held[id] = true, true
	}
	for _, m := range mounts.Reached(s.snapshot, s.targetMounts()) { // they go with the target
		s.own[m.ID], s.held[m.ID] = true, true
	}
	for ns, m := range s.snapshot.All {
		s.known[m.ID] = m.Dev
		s.superblocks[m.Dev] = true
		if s.target.onDevice(m.Dev) {
			s.held[m.ID] = true
			s.holding[ns.Inode] = true
			if !ns.Own && !s.own[m.ID] {
				s.foreign[ns.Inode] = true
			}
		}
		if block.IsRemote(m.FSType) {
			s.remote[ns.Inode] = append(s.remote[ns.Inode], m.Point)
		}
	}
}

// targetMounts returns the mounts that are the target.
func (s *scan) targetMounts() []mounts.Mount {
	var list []mounts.Mount
	for _, m := range s.snapshot.All {
		if slices.Contains(s.target.Mounts, m.ID) {
			list = append(list, m)
		}
	}
	return list
}

// findBtrfs finds the btrfs file systems of the target, and whether each is mounted somewhere.
func (s *scan) findBtrfs() error {
	x, err := indexBtrfs(s.snapshot)
	if err != nil {
		return err
	}
	if len(s.target.Btrfs) > 0 && x.list == nil {
		if x.list, err = listBtrfs(); err != nil {
			return err
		}
	}
	for i := range x.list {
		b := &x.list[i]
		numbers := x.numbersOf(b)
		mounted := slices.ContainsFunc(numbers, s.target.onDevice)
		if mounted || slices.Contains(s.target.Btrfs, b.id.String()) {
			s.btrfs = append(s.btrfs, b)
			s.hidden = s.hidden || len(numbers) == 0
		}
	}
	s.oldKernel = kernelBefore(subvolumeSince)
	return nil
}

func (s *scan) add(h ...Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders = append(s.holders, h...)
}

// collect takes the findings of a worker.
func (s *scan) collect(r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders = append(s.holders, r.found...)
	s.socketUses = append(s.socketUses, r.uses...)
}

func (s *scan) report(searched []Class) Report {
	r := Report{
		Version: Version, Target: s.target, Holders: s.holders, Searched: searched,
		Processes: s.processes, Namespaces: len(s.snapshot.Namespaces), UnownedSockets: s.unowned(),
		Source: s.source, Fallback: s.fallback,
	}
	r.unseen(s.unseen()...)
	slices.SortStableFunc(r.Holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.TID, b.TID))
	})
	r.judge()
	return r
}
