package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// rootfsSource is a plain directory taken as an image of one layer.
type rootfsSource struct {
	root  *os.File
	bytes int64
}

// openRootfs opens a directory, and adds up its files.
func openRootfs(ref Ref, o OpenOptions) (_ *Image, err error) {
	if o.EnforceSigPolicy {
		return nil, errors.New("a directory has no signature, but the signature policy is to be enforced")
	}
	if err := checkRootfs(ref.Name); err != nil {
		return nil, err
	}
	fd, err := unix.Open(ref.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ref.Name, Err: err}
	}
	src := &rootfsSource{root: os.NewFile(uintptr(fd), ref.Name)}
	defer func() {
		if err != nil {
			src.close()
		}
	}()
	sum := &sizer{seen: map[fileID]bool{}}
	if err := walkDir(src.root, "", sum); err != nil {
		return nil, err
	}
	src.bytes = sum.bytes
	return &Image{
		Ref:          ref,
		Labels:       map[string]string{},
		Architecture: o.Platform.withDefaults().Architecture,
		Layers:       []LayerInfo{{Size: sum.bytes, Uncompressed: sum.bytes}},
		src:          src,
	}, nil
}

func (s *rootfsSource) size() int64  { return s.bytes }
func (s *rootfsSource) close() error { return s.root.Close() }

// fileID identifies a file that has several names.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{st.Dev, st.Ino} }

// dirVisitor receives the entries that [walkDir] finds.
type dirVisitor interface {
	// dir is called for each directory, before its contents.
	dir(f *os.File, path string, st *unix.Stat_t) error
	// other is called for all else, with the directory that holds it.
	other(dir *os.File, name, path string, st *unix.Stat_t) error
}

// walkDir visits an open directory and all below it, except entries that the top-level rule drops,
// in byte order, never through a symbolic link.
func walkDir(f *os.File, at string, v dirVisitor) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	if err := v.dir(f, at, &st); err != nil {
		return err
	}
	if isVolatile(at) {
		return nil
	}
	names, err := listDir(f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := walkEntry(f, name, path.Join(at, name), v); err != nil {
			return err
		}
	}
	return nil
}

// listDir reads a directory that may have been read before.
func listDir(f *os.File) ([]string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	// Through ReadDir, which asks for no more than the names and types.
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	return names, nil
}

func walkEntry(dir *os.File, name, at string, v dirVisitor) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	if st.Mode&modeType != modeDir {
		return v.other(dir, name, at, &st)
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	sub := os.NewFile(uintptr(fd), at)
	defer sub.Close()
	return walkDir(sub, at, v)
}

// sizer adds up the bytes of regular files, each once.
type sizer struct {
	seen  map[fileID]bool
	bytes int64
}

func (s *sizer) dir(*os.File, string, *unix.Stat_t) error { return nil }

func (s *sizer) other(_ *os.File, _, _ string, st *unix.Stat_t) error {
	if st.Mode&modeType != modeRegular {
		return nil
	}
	if st.Nlink > 1 {
		if s.seen[idOf(st)] {
			return nil
		}
		s.seen[idOf(st)] = true
	}
	s.bytes += st.Size
	return nil
}

// importTree walks the directory again and stores its contents.
func (s *rootfsSource) importTree(ctx context.Context, img *Image, sink Sink, o ImportOptions) (*Tree, error) {
	g, gctx := errgroup.WithContext(ctx)
	pool := newStorePool(gctx, g, sink, o.Parallel)
	w := newTreeWalk(gctx, pool, o)
	g.Go(func() error {
		defer close(pool.jobs)
		return walkDir(s.root, "", w)
	})
	if err := g.Wait(); err != nil {
		return nil, s.fault(ctx, img, err)
	}
	return assemble(img.Ref, []*Node{w.tree.root}, w.tree.dropped, w.tree.ignored)
}

func newTreeWalk(ctx context.Context, out storer, o ImportOptions) *treeWalk {
	w := &treeWalk{
		ctx: ctx, opts: o, entries: o.MaxEntries, bytes: o.MaxLayerSize,
		tree: newBuilder(newBudget(o.MaxTree)), links: map[fileID]*Node{}, out: out,
	}
	w.tree.label = o.Label
	return w
}

// fault sorts the errors of an import as the layers' are.
func (s *rootfsSource) fault(ctx context.Context, img *Image, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("importing %s: %w", img.Ref, context.Cause(ctx))
	}
	if sink := (*sinkError)(nil); errors.As(err, &sink) {
		return err
	}
	fault := &SourceError{Ref: img.Ref.String(), Err: err}
	if e := (*entryError)(nil); errors.As(err, &e) {
		fault.Entry, fault.Err = e.entry, e.err
	}
	return fault
}

// treeWalk makes a tree of a directory and stores its contents.
type treeWalk struct {
	ctx     context.Context
	opts    ImportOptions
	tree    *builder
	links   map[fileID]*Node // files with several names
	out     storer
	entries int64
	bytes   int64
}

// dir implements dirVisitor. It counts the entries that the top-level rule drops.
func (w *treeWalk) dir(f *os.File, at string, st *unix.Stat_t) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	e, err := w.describe(st, f, "", at)
	if err != nil {
		return &entryError{at, err}
	}
	if _, err := w.put(at, e); err != nil {
		return err
	}
	if !isVolatile(at) {
		return nil
	}
	names, err := listDir(f)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		w.tree.dropped[at] += len(names)
	}
	return nil
}

// put adds an entry to the tree.
func (w *treeWalk) put(at string, e *entry) (*Node, error) {
	if w.entries--; w.entries < 0 {
		return nil, &entryError{at, errors.New("the directory has more entries than the limit")}
	}
	parts, err := splitPath(at)
	if err == nil && len(parts) > 0 && strings.HasPrefix(parts[len(parts)-1], whiteoutPrefix) {
		err = errors.New("the name is that of a whiteout, which only a layer can have")
	}
	if err != nil {
		return nil, &entryError{at, err}
	}
	node, err := w.tree.add(parts, e)
	if err != nil {
		return nil, &entryError{at, err}
	}
	return node, nil
}

// other implements dirVisitor.
func (w *treeWalk) other(dir *os.File, name, at string, st *unix.Stat_t) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if st.Nlink > 1 {
		if known := w.links[idOf(st)]; known != nil {
			return w.link(at, known)
		}
	}
	node, err := w.file(dir, name, at, st)
	if err == nil && st.Nlink > 1 {
		w.links[idOf(st)] = node
	}
	return err
}

// link gives a file seen before another name.
func (w *treeWalk) link(at string, known *Node) error {
	if _, err := w.put(at, &entry{Meta: known.Meta}); err != nil {
		return err
	}
	parts, err := splitPath(at)
	if err != nil {
		return &entryError{at, err}
	}
	parent, err := w.tree.parent(parts, known.Meta)
	if err != nil {
		return &entryError{at, err}
	}
	parent.Children[parts[len(parts)-1]] = known
	return nil
}

func (w *treeWalk) file(dir *os.File, name, at string, st *unix.Stat_t) (*Node, error) {
	switch st.Mode & modeType {
	case modeSymlink:
		return w.symlink(dir, name, at, st)
	case modeRegular:
		return w.regular(dir, name, at)
	}
	return nil, &entryError{at, errors.New("neither a file, nor a directory, nor a symbolic link")}
}

func (w *treeWalk) symlink(dir *os.File, name, at string, st *unix.Stat_t) (*Node, error) {
	e, err := w.describe(st, dir, name, at)
	if err != nil {
		return nil, &entryError{at, err}
	}
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err == nil {
		err = checkTarget(string(buf[:n]))
	}
	if err != nil {
		return nil, &entryError{at, err}
	}
	e.target = string(buf[:n])
	node, err := w.put(at, e)
	if err != nil {
		return nil, err
	}
	return node, w.out.store(node, at, nil)
}

// regular opens a file without following a link that took its place, and trusts only the metadata
// of the open file.
func (w *treeWalk) regular(dir *os.File, name, at string) (*Node, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &entryError{at, fmt.Errorf("opening: %w", err)}
	}
	f := os.NewFile(uintptr(fd), at)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &entryError{at, err}
	}
	if st.Mode&modeType != modeRegular {
		return nil, &entryError{at, errors.New("replaced while it was read")}
	}
	e, err := w.describe(&st, f, "", at)
	if err != nil {
		return nil, &entryError{at, err}
	}
	if st.Size > w.bytes {
		return nil, &entryError{at, fmt.Errorf("file of %d bytes: the directory's files exceed the size limit", st.Size)}
	}
	w.bytes -= st.Size
	e.size = st.Size
	node, err := w.put(at, e)
	if err != nil {
		return nil, err
	}
	return node, w.out.store(node, at, &meteredReader{src: f, seen: w.opts.Progress})
}

// meteredReader reports the bytes that were read.
type meteredReader struct {
	src  io.Reader
	seen func(int64)
}

func (m *meteredReader) Read(b []byte) (int, error) {
	n, err := m.src.Read(b)
	m.seen(int64(n))
	return n, err
}

// describe takes the metadata of an open file, or of a name in an open directory.
func (w *treeWalk) describe(st *unix.Stat_t, f *os.File, name, at string) (*entry, error) {
	if st.Uid > maxID || st.Gid > maxID {
		return nil, fmt.Errorf("owner %d:%d is out of range", st.Uid, st.Gid)
	}
	xattrs, err := fileXattrs(f, name)
	if err != nil {
		return nil, err
	}
	e := &entry{Meta: Meta{Mode: st.Mode & (modeType | modePermMask), UID: st.Uid, GID: st.Gid}, path: at}
	if e.Mode&modeType == modeSymlink {
		e.Mode = modeSymlink | 0o777 // all that Linux shows of a link's mode
	}
	return e, w.tree.setXattrs(e, xattrs)
}
