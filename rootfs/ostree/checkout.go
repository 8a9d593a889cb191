package ostree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
)

// CheckoutOptions choose the tree that Checkout makes, and the way.
type CheckoutOptions struct {
	// Subpath is a directory in the commit, "usr/etc"; empty means the root.
	Subpath string
	// ForceCopy makes new files instead of hard links, and leaves the times of files and
	// directories as they come: for trees that will be changed.
	ForceCopy bool
	// Whiteouts makes the device that a file stands for which quotes a whiteout of an overlay, as a
	// deployment has it. See [QuotedWhiteout].
	Whiteouts bool
	// Workers is how many directories are made at once; 0 means one for each processor.
	Workers int
}

// Checkout makes the directory name in dest, which is not kept, with the tree of a commit. The
// directory must not exist. Files are hard links to the objects, but for empty files and those with
// too many links, which are copied. All times of modification are 1970, but with ForceCopy. The
// first directory of each shape, and the first object of each shape that this Repo wrote, are read
// back: see [Repo.ReadBack]. When Checkout fails, the files that it has made stay behind.
func (r *Repo) Checkout(ctx context.Context, commit Checksum, dest *os.File, name string, o CheckoutOptions) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	defer runtime.KeepAlive(dest)
	full := strings.TrimSuffix(dest.Name(), "/") + "/" + name
	if err := checkName(name); err != nil {
		return fmt.Errorf("checking out to %q: %w", full, err)
	}
	tree, meta, err := findTree(r, commit, o.Subpath)
	if err != nil {
		return fmt.Errorf("checking out %s: %w", commit, err)
	}
	if err := unix.Mkdirat(int(dest.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: full, Err: err}
	}
	if err := beneath.Plain(int(dest.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "prepare", Path: full, Err: err}
	}
	c := &checkout{repo: r, options: o, metas: map[Checksum]DirMeta{}}
	c.wake.L = &c.mu
	// The root of the work is the caller's descriptor: held once too often, so that it is never
	// closed here.
	parent := &sharedDir{handle: handle{fd: int(dest.Fd())}, users: 2}
	c.stack = []job{{parent: parent, name: name, path: full, tree: tree, meta: meta}}
	err = c.run(ctx)
	if err == nil {
		err = r.writer.readBack(ctx) // hard links share the objects' inodes
	}
	if err != nil {
		return fmt.Errorf("checking out %s: %w", commit, err)
	}
	return nil
}

// findTree returns the directory that subpath names in a commit.
func findTree(r *Repo, commit Checksum, subpath string) (tree, meta Checksum, err error) {
	c, err := r.LoadCommit(commit)
	if err != nil {
		return tree, meta, err
	}
	tree, meta = c.Tree, c.Meta
	for part := range strings.SplitSeq(strings.Trim(subpath, "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		t, err := r.LoadDirTree(tree)
		if err != nil {
			return tree, meta, err
		}
		d, ok := t.findDir(part)
		if !ok {
			return tree, meta, fmt.Errorf("directory %q in the commit: %w", subpath, ErrNotFound)
		}
		tree, meta = d.Tree, d.Meta
	}
	return tree, meta, nil
}

func (t DirTree) findDir(name string) (DirEntry, bool) {
	for _, d := range t.Dirs {
		if d.Name == name {
			return d, true
		}
	}
	return DirEntry{}, false
}

// checkout is one run: a stack of directories that exist and await filling. Taking the newest first
// keeps few of them open at a time.
type checkout struct {
	repo    *Repo
	options CheckoutOptions

	mu    sync.Mutex
	wake  sync.Cond
	stack []job
	busy  int
	err   error

	metaMu  sync.Mutex
	metas   map[Checksum]DirMeta
	samples sync.Map // shape -> true, of the directories that were read back
}

// job is one directory: it exists in parent with mode 0700.
type job struct {
	parent     *sharedDir
	name, path string
	tree, meta Checksum
}

// sharedDir is an open directory that closes when its last user has left: the job that fills it and
// the jobs of its subdirectories, until they are open.
type sharedDir struct {
	handle
	mu    sync.Mutex
	users int
}

func (d *sharedDir) leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users > 0 {
		return nil
	}
	return d.close()
}

func (c *checkout) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer stop()
	workers := c.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(c.work)
	}
	wg.Wait()
	for _, j := range c.stack {
		c.fail(j.parent.leave())
	}
	return c.err
}

// fail records the first error, which ends the run.
func (c *checkout) fail(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.wake.Broadcast()
}

func (c *checkout) work() {
	for {
		j, ok := c.next()
		if !ok {
			return
		}
		children, err := c.fill(j)
		c.fail(err)
		c.finish(children)
	}
}

// next waits for a job; there is none when all are done or one has failed.
func (c *checkout) next() (job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.stack) == 0 && c.busy > 0 && c.err == nil {
		c.wake.Wait()
	}
	last := len(c.stack) - 1
	if last < 0 || c.err != nil {
		return job{}, false
	}
	j := c.stack[last]
	c.stack[last] = job{}
	c.stack = c.stack[:last]
	c.busy++
	return j, true
}

func (c *checkout) finish(children []job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stack = append(c.stack, children...)
	c.busy--
	c.wake.Broadcast()
}

// fill makes the entries of one directory, then sets its metadata. Filling its subdirectories will
// hold no longer touches the directory itself.
func (c *checkout) fill(j job) ([]job, error) {
	h, err := openDirAt(c.repo.folders.ledger, j.path, j.parent.fd, j.name)
	if err = errors.Join(err, j.parent.leave()); err != nil {
		return nil, err
	}
	dir := &sharedDir{handle: h, users: 1}
	tree, err := c.repo.LoadDirTree(j.tree)
	if err == nil {
		err = c.makeEntries(dir, j.path, tree)
	}
	if err == nil {
		err = c.setDirMeta(h.fd, j)
	}
	if err != nil {
		return nil, errors.Join(err, dir.leave())
	}
	children := make([]job, 0, len(tree.Dirs))
	for _, d := range tree.Dirs {
		children = append(children, job{parent: dir, name: d.Name, path: j.path + "/" + d.Name, tree: d.Tree, meta: d.Meta})
	}
	dir.users += len(children) // no job is on the stack yet
	return children, dir.leave()
}

func (c *checkout) makeEntries(dir *sharedDir, path string, tree DirTree) error {
	for _, f := range tree.Files {
		if err := c.makeFile(dir.fd, f); err != nil {
			return fmt.Errorf("making %s/%s: %w", path, f.Name, objectKey{f.Checksum, TypeFile}.wrap(err))
		}
	}
	for _, d := range tree.Dirs {
		if err := unix.Mkdirat(dir.fd, d.Name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: path + "/" + d.Name, Err: err}
		}
	}
	return nil
}

func (c *checkout) makeFile(dir int, f FileEntry) error {
	k := objectKey{f.Checksum, TypeFile}
	if name, quoted := QuotedWhiteout(f.Name); quoted && c.options.Whiteouts {
		if made, err := c.repo.objects.makeWhiteout(k, dir, name); made || err != nil {
			return err
		}
	}
	if c.options.ForceCopy {
		return c.repo.objects.copy(k, dir, f.Name, false)
	}
	state, err := c.repo.objects.stateOf(k)
	switch {
	case err != nil:
		return err
	case state == stateUnknown:
		return ErrNotFound
	case state == stateEmpty:
		// One empty object may stand for more names than an inode can have links.
		return c.repo.objects.copy(k, dir, f.Name, true)
	}
	from, err := c.repo.objects.prefixDir(k.sum[0], false)
	if err != nil {
		return err
	}
	err = unix.Linkat(from, k.name(), dir, f.Name, 0)
	if err == unix.EMLINK || err == unix.EXDEV {
		return c.repo.objects.copy(k, dir, f.Name, true)
	}
	return err
}

// setDirMeta gives a filled directory its owner, mode, attributes and time.
func (c *checkout) setDirMeta(fd int, j job) error {
	m, err := c.dirMeta(j.meta)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
		return &os.PathError{Op: "chown", Path: j.path, Err: err}
	}
	if err := unix.Fchmod(fd, m.Mode&modePermMask); err != nil {
		return &os.PathError{Op: "chmod", Path: j.path, Err: err}
	}
	for _, x := range m.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return &os.PathError{Op: "setxattr " + x.Name, Path: j.path, Err: err}
		}
	}
	if !c.options.ForceCopy {
		if err := zeroModTime(fd); err != nil {
			return err
		}
	}
	return c.sampleDir(fd, j.path, m)
}

// dirMeta remembers the objects that it loads: most directories share a few.
func (c *checkout) dirMeta(sum Checksum) (DirMeta, error) {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	if m, ok := c.metas[sum]; ok {
		return m, nil
	}
	m, err := c.repo.LoadDirMeta(sum)
	if err == nil {
		c.metas[sum] = m
	}
	return m, err
}
