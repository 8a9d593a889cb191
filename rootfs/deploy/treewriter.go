package deploy

import (
	"context"
	"fmt"
	"sync"

	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// treeWriter writes the directories of image trees as objects. A subtree that several trees share
// is written once.
type treeWriter struct {
	repo  *ostree.Repo
	slots slots
	dirs  sync.Map // *image.Node -> written
	metas sync.Map // encoded dirmeta, as string -> ostree.Checksum
}

// written names the two objects of a directory.
type written struct {
	tree, meta ostree.Checksum
}

func newTreeWriter(repo *ostree.Repo) *treeWriter {
	return &treeWriter{repo: repo, slots: newSlots()}
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

// writeAll writes the named children of n.
func (w *treeWriter) writeAll(ctx context.Context, n *image.Node, names []string) ([]ostree.DirEntry, error) {
	entries := make([]ostree.DirEntry, len(names))
	return entries, w.slots.each(ctx, len(names), func(ctx context.Context, i int) error {
		sums, err := w.write(ctx, n.Children[names[i]])
		if err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		entries[i] = ostree.DirEntry{Name: names[i], Tree: sums.tree, Meta: sums.meta}
		return nil
	})
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
