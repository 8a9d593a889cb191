package ostree

import (
	"errors"
	"fmt"
	"sync"
)

// flushEvery is how many bytes of content are stored before they begin to go to the device, while
// more are stored: the device has else little to do until Sync, and all of it then.
const flushEvery = 256 << 20

// flusher writes the file system out aside, one time after another.
type flusher struct {
	sync func() error

	mu      sync.Mutex
	fresh   int64         // bytes of content since it began last
	running chan struct{} // closed when the running write-back has ended; nil: none is running
	err     error         // that no call has returned yet
}

// wrote counts content, and begins to write out when there is enough.
func (f *flusher) wrote(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fresh += bytes; f.fresh >= flushEvery {
		f.start()
	}
}

// start begins to write out unless that is under way. The caller has mu.
func (f *flusher) start() {
	if f.running != nil {
		return
	}
	f.fresh = 0
	done := make(chan struct{})
	f.running = done
	go func() {
		err := f.sync()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = errors.Join(f.err, err)
		f.running = nil
		close(done)
	}()
}

// wait waits for the running write-back.
func (f *flusher) wait() {
	f.mu.Lock()
	running := f.running
	f.mu.Unlock()
	if running != nil {
		<-running
	}
}

// take returns the error of write-back in the background, once: the kernel reports a lost write
// only once, too.
func (f *flusher) take() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.err
	f.err = nil
	if err != nil {
		return syncFault(err)
	}
	return nil
}

func syncFault(err error) error {
	return fmt.Errorf("syncing the file system of %s: %w", repoPath, err)
}

// StartSync begins to write the repository's file system to its device, and does not wait. The next
// Sync, else Close, returns its error.
func (r *Repo) StartSync() error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	r.flusher.mu.Lock()
	defer r.flusher.mu.Unlock()
	r.flusher.start()
	return nil
}

// Sync writes everything on the repository's file system to its device. One call at the end takes
// the place of an fsync for each object.
func (r *Repo) Sync() error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	r.flusher.wait()
	aside := r.flusher.take()
	if err := r.flusher.sync(); err != nil {
		return errors.Join(aside, syncFault(err))
	}
	return aside
}
