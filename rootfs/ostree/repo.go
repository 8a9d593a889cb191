package ostree

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// repoPath is where a system's repository stands beneath its physical root.
const repoPath = "ostree/repo"

// Repo is an open repository. Its methods may be called concurrently.
type Repo struct {
	ledger Ledger
	config Config

	// fresh says that this process created the repository: an object that it has not written is not
	// there, and no one else reads it, so that objects can be made under their final names.
	fresh bool
	xfs   bool // the repository is on XFS; see asShown

	gate     gate
	dir      handle // ostree/repo
	objects  handle
	tmp      handle
	prefixes [256]prefix

	tmpSeed string
	tmpSeq  atomic.Uint64
	scratch sync.Pool // of *scratch
	flusher flusher
	samples sync.Map // shape -> objectKey, of the first object of each shape

	lockMu sync.Mutex
	locks  map[*heldLock]struct{}
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

func newRepo(l Ledger) *Repo {
	if l == nil {
		l = noLedger{}
	}
	r := &Repo{ledger: l, locks: map[*heldLock]struct{}{}}
	r.gate.init()
	r.flusher.sync = func() error { return unix.Syncfs(r.dir.fd) }
	r.dir.fd, r.objects.fd, r.tmp.fd = -1, -1, -1
	for i := range r.prefixes {
		p := &r.prefixes[i]
		p.done.L, p.dir.fd = &p.mu, -1
	}
	r.scratch.New = newScratch
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails on Linux
	r.tmpSeed = "write-" + hex.EncodeToString(seed[:]) + "-"
	return r
}

// Create makes an empty bare repository at ostree/repo beneath root, a directory descriptor that
// Create does not keep, and opens it. Where one stands already the error is ErrExists. A nil ledger
// accounts for nothing.
//
// A created repository takes objects under their final names at once, which nothing but this handle
// should read before Sync: an interrupted process can leave a half-written object behind.
func Create(root *os.File, cfg Config, l Ledger) (*Repo, error) {
	defer runtime.KeepAlive(root)
	r := newRepo(l)
	r.config, r.fresh = cfg, true
	if err := r.create(root); err != nil {
		return nil, errors.Join(fmt.Errorf("creating repository %s: %w", repoPath, err), r.closeHandles())
	}
	return r, nil
}

func (r *Repo) create(root *os.File) error {
	if _, err := makeDir(int(root.Fd()), "ostree", "ostree", 0o755); err != nil {
		return err
	}
	top, err := openDirAt(r.ledger, "ostree", int(root.Fd()), "ostree")
	if err != nil {
		return err
	}
	defer top.close()
	if _, err := makeDir(top.fd, "repo", repoPath, 0o755); err != nil {
		return err
	}
	if r.dir, err = openDirAt(r.ledger, repoPath, top.fd, "repo"); err != nil {
		return err
	}
	if err := r.createLayout(); err != nil {
		return err
	}
	return r.openFolders()
}

// createLayout makes the folders and the configuration. The folder of objects comes last, since its
// presence makes the directory a repository.
func (r *Repo) createLayout() error {
	var st unix.Stat_t
	if err := unix.Fstatat(r.dir.fd, "objects", &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
		if err == nil {
			return ErrExists
		}
		return &os.PathError{Op: "stat", Path: repoPath + "/objects", Err: err}
	}
	for _, name := range []string{"tmp", "tmp/cache", "extensions", "state", "refs", "refs/heads", "refs/mirrors", "refs/remotes"} {
		if _, err := makeDir(r.dir.fd, name, repoPath+"/"+name, 0o755); err != nil {
			return err
		}
	}
	if err := r.writeConfig(); err != nil {
		return err
	}
	isNew, err := makeDir(r.dir.fd, "objects", repoPath+"/objects", 0o755)
	if err == nil && !isNew {
		err = ErrExists
	}
	return err
}

func (r *Repo) writeConfig() error {
	data, err := r.config.encode()
	if err != nil {
		return err
	}
	name := repoPath + "/config"
	h, err := openAt(r.ledger, name, r.dir.fd, "config", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer h.close()
	if err := writeAll(h.fd, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := unix.Fchmod(h.fd, 0o644); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return h.close()
}

// Open opens the repository at ostree/repo beneath root, a directory descriptor that Open does not
// keep. Repositories of another mode or version, or with settings that this package does not
// honour, are refused. A nil ledger accounts for nothing.
func Open(root *os.File, l Ledger) (*Repo, error) {
	defer runtime.KeepAlive(root)
	r := newRepo(l)
	if err := r.open(root); err != nil {
		return nil, errors.Join(fmt.Errorf("opening repository %s: %w", repoPath, err), r.closeHandles())
	}
	return r, nil
}

func (r *Repo) open(root *os.File) error {
	top, err := openDirAt(r.ledger, "ostree", int(root.Fd()), "ostree")
	if err != nil {
		return err
	}
	defer top.close()
	if r.dir, err = openDirAt(r.ledger, repoPath, top.fd, "repo"); err != nil {
		return err
	}
	data, err := readSmallFile(r.ledger, r.dir.fd, "config", repoPath+"/config", maxConfigSize)
	if err != nil {
		return err
	}
	if r.config, err = parseConfig(data); err != nil {
		return err
	}
	return r.openFolders()
}

// openFolders opens the folders that writing and reading start from.
func (r *Repo) openFolders() error {
	var err error
	if r.xfs, err = isXFS(r.dir.fd); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", repoPath, err)
	}
	if r.objects, err = openDirAt(r.ledger, repoPath+"/objects", r.dir.fd, "objects"); err != nil {
		return err
	}
	r.tmp, err = openDirAt(r.ledger, repoPath+"/tmp", r.dir.fd, "tmp")
	return err
}

// Config returns the configuration the repository was created or opened with.
func (r *Repo) Config() Config { return r.config }

// Close waits for running operations and gives back every descriptor and lock. Objects that were
// handed out stay valid, and open, until they are closed themselves. Close also returns write-back
// errors that no Sync has returned yet. Every later use, a second Close too, returns ErrClosed.
func (r *Repo) Close() error { return r.shut(r.flusher.take) }

// Discard closes an abandoned repository and ignores write-back errors.
func (r *Repo) Discard() error { return r.shut(func() error { return nil }) }

func (r *Repo) shut(lost func() error) error {
	if err := r.gate.close(); err != nil {
		return err
	}
	r.flusher.wait()
	return errors.Join(lost(), r.releaseLocks(), r.closeHandles())
}

func (r *Repo) closeHandles() error {
	var errs []error
	for i := range r.prefixes {
		errs = append(errs, r.prefixes[i].dir.close())
	}
	errs = append(errs, r.objects.close(), r.tmp.close(), r.dir.close())
	return errors.Join(errs...)
}

// prefixDir returns the descriptor of one folder of objects, opened once and kept. A missing folder
// is made when create is set.
func (r *Repo) prefixDir(i byte, create bool) (int, error) {
	p := &r.prefixes[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir.fd >= 0 {
		return p.dir.fd, nil
	}
	name := prefixName(i)
	full := repoPath + "/objects/" + name
	if create {
		if _, err := makeDir(r.objects.fd, name, full, 0o755); err != nil {
			return -1, err
		}
	}
	h, err := openDirAt(r.ledger, full, r.objects.fd, name)
	if err != nil {
		return -1, err
	}
	p.dir = h
	return h.fd, nil
}
