package ostree

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// repoPath is where a system's repository stands beneath its physical root.
const repoPath = "ostree/repo"

// Repo is an open repository. Its methods may be called concurrently.
type Repo struct {
	config  Config
	gate    gate
	folders folders
	objects objects
	writer  writer
	refs    refs
	locks   locks
	flusher flusher
}

func newRepo(l Ledger) *Repo {
	if l == nil {
		l = noLedger{}
	}
	r := &Repo{}
	r.gate.init()
	r.folders.init(l)
	r.objects.init(&r.folders)
	r.flusher.sync = func() error { return unix.Syncfs(r.folders.repo.fd) }
	r.writer.folders, r.writer.objects, r.writer.flusher = &r.folders, &r.objects, &r.flusher
	r.writer.scratch.New = newScratch
	r.refs.folders = &r.folders
	r.locks.folders, r.locks.held = &r.folders, map[*heldLock]struct{}{}
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
	r.config, r.objects.fresh = cfg, true
	r.writer.verity.wanted = cfg.Verity
	err := r.folders.create(root, cfg)
	if err == nil && cfg.Verity {
		err = r.markProtected()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating repository %s: %w", repoPath, err), r.closeHandles())
	}
	return r, nil
}

// Open opens the repository at ostree/repo beneath root, a directory descriptor that Open does not
// keep. Repositories of another mode or version, or with settings that this package does not
// honour, are refused. A nil ledger accounts for nothing.
func Open(root *os.File, l Ledger) (*Repo, error) {
	defer runtime.KeepAlive(root)
	r := newRepo(l)
	var err error
	if r.config, err = r.folders.open(root); err != nil {
		return nil, errors.Join(fmt.Errorf("opening repository %s: %w", repoPath, err), r.closeHandles())
	}
	r.writer.verity.wanted = r.config.Verity
	return r, nil
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
	return errors.Join(lost(), r.locks.dropAll(), r.closeHandles())
}

func (r *Repo) closeHandles() error { return errors.Join(r.objects.close(), r.folders.close()) }
