package deploy

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// treeWriter writes the directories of image trees as objects. A subtree that several trees share
// is written once.
type treeWriter struct {
	repo  *ostree.Repo
	slots chan struct{} // one for each directory that may be worked on aside
	dirs  sync.Map      // *image.Node -> written
	metas sync.Map      // encoded dirmeta, as string -> ostree.Checksum
}

// written names the two objects of a directory.
type written struct {
	tree, meta ostree.Checksum
}

func newTreeWriter(repo *ostree.Repo) *treeWriter {
	return &treeWriter{repo: repo, slots: make(chan struct{}, runtime.NumCPU())}
}

// write writes the directory n and all below it, children before parents.
func (w *treeWriter) write(ctx context.Context, n *image.Node) (written, error) {
	if known, ok := w.dirs.Load(n); ok {
		return known.(written), nil
	}
	if err := ctx.Err(); err != nil {
		return written{}, err
	}
	subdirs, tree, err := split(n)
	if err != nil {
		return written{}, err
	}
	if tree.Dirs, err = w.writeAll(ctx, n, subdirs); err != nil {
		return written{}, err
	}
	var out written
	if out.tree, err = w.repo.WriteDirTree(tree); err != nil {
		return written{}, fmt.Errorf("writing a directory's list: %w", err)
	}
	if out.meta, err = w.writeMeta(n.Meta); err != nil {
		return written{}, fmt.Errorf("writing a directory's metadata: %w", err)
	}
	w.dirs.Store(n, out)
	return out, nil
}

// split separates the entries of a directory: names of directories, and entries of all else.
func split(n *image.Node) (subdirs []string, tree ostree.DirTree, err error) {
	if !n.IsDir() {
		return nil, tree, fmt.Errorf("mode %#o is not a directory's", n.Mode)
	}
	for _, name := range n.Names() {
		child := n.Children[name]
		if child.IsDir() {
			subdirs = append(subdirs, name)
			continue
		}
		tree.Files = append(tree.Files, ostree.FileEntry{Name: name, Checksum: ostree.Checksum(child.Content)})
	}
	return subdirs, tree, nil
}

// writeAll writes the named children of n: aside where a slot is free, else right here, so that
// nothing ever waits.
func (w *treeWriter) writeAll(ctx context.Context, n *image.Node, names []string) ([]ostree.DirEntry, error) {
	entries := make([]ostree.DirEntry, len(names))
	group, ctx := errgroup.WithContext(ctx)
	var here error
	for i, name := range names {
		one := func() error {
			sums, err := w.write(ctx, n.Children[name])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			entries[i] = ostree.DirEntry{Name: name, Tree: sums.tree, Meta: sums.meta}
			return nil
		}
		select {
		case w.slots <- struct{}{}:
			group.Go(func() error {
				defer func() { <-w.slots }()
				return one()
			})
		default:
			here = one()
		}
		if here != nil {
			break
		}
	}
	if err := group.Wait(); here == nil {
		here = err
	}
	return entries, here
}

// writeMeta writes a directory's metadata; most directories of a tree share very few.
func (w *treeWriter) writeMeta(m image.Meta) (ostree.Checksum, error) {
	meta := ostree.DirMeta{UID: m.UID, GID: m.GID, Mode: m.Mode, Xattrs: m.Xattrs}
	data, err := meta.Encode()
	if err != nil {
		return ostree.Checksum{}, err
	}
	if known, ok := w.metas.Load(string(data)); ok {
		return known.(ostree.Checksum), nil
	}
	sum, err := w.repo.WriteDirMeta(meta)
	if err == nil {
		w.metas.Store(string(data), sum)
	}
	return sum, err
}
