package ostree

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// objects is the objects that are there, and the way to read them.
type objects struct {
	folders *folders
	// fresh says that this process created the repository: an object that it has not written is not
	// there, and no one else reads it, so that objects can be made under their final names.
	fresh    bool
	prefixes [256]prefix
}

// prefix is one folder of objects and the known states of its objects.
type prefix struct {
	mu    sync.Mutex
	done  sync.Cond // an object left the state stateWriting
	dir   handle
	known map[objectKey]objectState
}

// objectState is this process's knowledge about an object.
type objectState uint8

const (
	stateUnknown objectState = iota // not in the map
	stateWriting
	statePresent
	stateEmpty // present, and a regular file without content
)

func (o *objects) init(f *folders) {
	o.folders = f
	for i := range o.prefixes {
		p := &o.prefixes[i]
		p.done.L, p.dir.fd = &p.mu, -1
	}
}

func (o *objects) close() error {
	var errs []error
	for i := range o.prefixes {
		errs = append(errs, o.prefixes[i].dir.close())
	}
	return errors.Join(errs...)
}

// prefixDir returns the descriptor of one folder of objects, opened once and kept. A missing folder
// is made when create is set.
func (o *objects) prefixDir(i byte, create bool) (int, error) {
	p := &o.prefixes[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir.fd >= 0 {
		return p.dir.fd, nil
	}
	name := prefixName(i)
	full := repoPath + "/objects/" + name
	if create {
		if _, err := makeDir(o.folders.objects.fd, name, full, 0o755); err != nil {
			return -1, err
		}
	}
	h, err := openDirAt(o.folders.ledger, full, o.folders.objects.fd, name)
	if err != nil {
		return -1, err
	}
	p.dir = h
	return h.fd, nil
}

// stateOf returns the state of an object, looking on disk at most once.
func (o *objects) stateOf(k objectKey) (objectState, error) {
	p := &o.prefixes[k.sum[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.known[k] == stateWriting {
		p.done.Wait()
	}
	if s := p.known[k]; s != stateUnknown {
		return s, nil
	}
	s, err := o.probe(k)
	if err == nil && s != stateUnknown {
		p.remember(k, s)
	}
	return s, err
}

func (p *prefix) remember(k objectKey, s objectState) {
	if p.known == nil {
		p.known = map[objectKey]objectState{}
	}
	p.known[k] = s
}

// require fails unless the object exists.
func (o *objects) require(k objectKey) error {
	state, err := o.stateOf(k)
	if err == nil && state == stateUnknown {
		err = ErrNotFound
	}
	return k.wrap(err)
}

func presentState(k objectKey, h *FileHeader, size int64) objectState {
	if k.typ == TypeFile && size == 0 && !h.IsSymlink() {
		return stateEmpty
	}
	return statePresent
}

// claim reports whether the caller is to write the object, and must settle it then. It waits while
// another goroutine writes the same object, so that nobody links or counts on half a file.
func (o *objects) claim(k objectKey) (bool, error) {
	p := &o.prefixes[k.sum[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.known[k] == stateWriting {
		p.done.Wait()
	}
	if p.known[k] != stateUnknown {
		return false, nil
	}
	if !o.fresh {
		state, err := o.probe(k)
		if err != nil {
			return false, err
		}
		if state != stateUnknown {
			p.remember(k, state)
			return false, nil
		}
	}
	p.remember(k, stateWriting)
	return true, nil
}

// settle ends a claim.
func (o *objects) settle(k objectKey, state objectState) {
	p := &o.prefixes[k.sum[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == stateUnknown {
		delete(p.known, k)
	} else {
		p.known[k] = state
	}
	p.done.Broadcast()
}

// probe looks on disk for an object that this process has not written.
func (o *objects) probe(k objectKey) (objectState, error) {
	var st unix.Stat_t
	err := unix.Fstatat(o.folders.objects.fd, prefixName(k.sum[0])+"/"+k.name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return stateUnknown, nil
	case err != nil:
		return stateUnknown, &os.PathError{Op: "stat", Path: k.ledgerName(), Err: err}
	case k.typ == TypeFile && st.Mode&modeTypeMask == modeRegular && st.Size == 0:
		return stateEmpty, nil
	}
	return statePresent, nil
}
