package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"installer/rootfs/beneath"
	"installer/rootfs/composefs"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// ComposefsName is the composefs image in the root of a deployment.
const ComposefsName = ".ostree.cfs"

// composefsVersions are those that libostree asks libcomposefs for.
var composefsVersions = composefs.Versions{Min: 0, Max: 1}

// composefsDirs are the directories of the root on which the initramfs mounts something; libostree
// adds to the image those that the commit lacks.
var composefsDirs = []string{"usr", "etc", "boot", "var", "sysroot"}

const modeDirectory = 0o040000

// ComposefsImage lays out the image of a commit's tree, as libostree does at a deployment. verity asks
// for the fs-verity digests of the files; unprotected is the number of those that have no fs-verity.
func ComposefsImage(ctx context.Context, repo *ostree.Repo, commit ostree.Checksum, verity bool) (image *composefs.Image, unprotected int, err error) {
	c, err := repo.LoadCommit(commit)
	if err != nil {
		return nil, 0, err
	}
	return composefsImage(ctx, repo, written{c.Tree, c.Meta}, verity)
}

// imageOfNode is ComposefsImage for the tree of a commit that was just written.
func imageOfNode(repo *ostree.Repo, root *image.Node, verity bool) (*composefs.Image, error) {
	r := &treeReader{repo: repo, verity: verity}
	top, err := r.node(root)
	if err != nil {
		return nil, fmt.Errorf("reading the tree of the composefs image: %w", err)
	}
	return layOut(top)
}

func composefsImage(ctx context.Context, repo *ostree.Repo, root written, verity bool) (image *composefs.Image, unprotected int, err error) {
	r := &treeReader{repo: repo, verity: verity, slots: newSlots()}
	top, err := r.read(ctx, root)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the tree of the composefs image: %w", err)
	}
	image, err = layOut(top)
	return image, int(r.unprotected.Load()), err
}

// layOut lays out the image of a tree, with the directories that it must have.
func layOut(top *composefs.Inode) (*composefs.Image, error) {
	for _, name := range composefsDirs {
		at, found := slices.BinarySearchFunc(top.Entries, name, func(e composefs.Entry, name string) int { return strings.Compare(e.Name, name) })
		if !found {
			top.Entries = slices.Insert(top.Entries, at, composefs.Entry{Name: name, Inode: &composefs.Inode{Mode: modeDirectory | 0o755}})
		}
	}
	return composefs.New(top, composefsVersions)
}

// composefsDigest returns the fs-verity digest of the image of a tree.
func composefsDigest(repo *ostree.Repo, root *image.Node) (d composefs.Digest, err error) {
	image, err := imageOfNode(repo, root, true)
	if err != nil {
		return d, err
	}
	h := composefs.NewHash()
	if _, err := image.WriteTo(h); err != nil {
		return d, err
	}
	return composefs.Digest(h.Sum(nil)), nil
}

// treeReader reads the tree of a commit out of the repository.
type treeReader struct {
	repo   *ostree.Repo
	verity bool
	slots  slots
	metas  sync.Map // ostree.Checksum -> ostree.DirMeta

	unprotected atomic.Int64 // files that have no fs-verity, and should
}

// read reads a directory and all below it.
func (r *treeReader) read(ctx context.Context, dir written) (*composefs.Inode, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tree, err := r.repo.LoadDirTree(dir.tree)
	if err != nil {
		return nil, err
	}
	meta, err := r.meta(dir.meta)
	if err != nil {
		return nil, err
	}
	n := &composefs.Inode{Mode: meta.Mode, UID: meta.UID, GID: meta.GID, Xattrs: meta.Xattrs}
	n.Entries = make([]composefs.Entry, 0, len(tree.Files)+len(tree.Dirs))
	for _, f := range tree.Files {
		file, err := r.file(f.Checksum)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		n.Entries = append(n.Entries, composefs.Entry{Name: f.Name, Inode: file})
	}
	dirs, err := r.readAll(ctx, tree.Dirs)
	if err != nil {
		return nil, err
	}
	n.Entries = append(n.Entries, dirs...)
	slices.SortFunc(n.Entries, func(a, b composefs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return n, nil
}

// readAll reads directories.
func (r *treeReader) readAll(ctx context.Context, dirs []ostree.DirEntry) ([]composefs.Entry, error) {
	entries := make([]composefs.Entry, len(dirs))
	return entries, r.slots.each(ctx, len(dirs), func(ctx context.Context, i int) error {
		n, err := r.read(ctx, written{dirs[i].Tree, dirs[i].Meta})
		if err != nil {
			return fmt.Errorf("%s: %w", dirs[i].Name, err)
		}
		entries[i] = composefs.Entry{Name: dirs[i].Name, Inode: n}
		return nil
	})
}

// meta reads a directory's metadata; most directories of a tree share very few.
func (r *treeReader) meta(sum ostree.Checksum) (ostree.DirMeta, error) {
	if known, ok := r.metas.Load(sum); ok {
		return known.(ostree.DirMeta), nil
	}
	m, err := r.repo.LoadDirMeta(sum)
	if err == nil {
		r.metas.Store(sum, m)
	}
	return m, err
}

// node describes a directory and all below it.
func (r *treeReader) node(dir *image.Node) (*composefs.Inode, error) {
	meta, err := ostree.DirMeta{UID: dir.UID, GID: dir.GID, Mode: dir.Mode, Xattrs: dir.Xattrs}.Shown()
	if err != nil {
		return nil, err
	}
	out := &composefs.Inode{Mode: meta.Mode, UID: meta.UID, GID: meta.GID, Xattrs: meta.Xattrs, Entries: make([]composefs.Entry, 0, len(dir.Children))}
	for _, name := range dir.Names() {
		child := dir.Children[name]
		var n *composefs.Inode
		if child.IsDir() {
			n, err = r.node(child)
		} else {
			var h ostree.FileHeader
			h, err = r.repo.Shown(ostree.FileHeader{UID: child.UID, GID: child.GID, Mode: child.Mode, Xattrs: child.Xattrs, Target: child.Target})
			if err == nil {
				n, err = r.describe(ostree.Checksum(child.Content), h, child.Size)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Entries = append(out.Entries, composefs.Entry{Name: name, Inode: n})
	}
	return out, nil
}

// file describes a file object.
func (r *treeReader) file(sum ostree.Checksum) (*composefs.Inode, error) {
	h, size, err := r.repo.Stat(sum)
	if err != nil {
		return nil, err
	}
	return r.describe(sum, h, size)
}

// describe describes a file as libostree does: no times, one name, and content only in the
// repository.
func (r *treeReader) describe(sum ostree.Checksum, h ostree.FileHeader, size int64) (*composefs.Inode, error) {
	n := &composefs.Inode{Mode: h.Mode, UID: h.UID, GID: h.GID, Links: 1, Xattrs: h.Xattrs, Target: h.Target}
	if h.IsSymlink() || size == 0 {
		return n, nil
	}
	n.Size, n.Path = uint64(size), ostree.ContentPath(sum)
	if r.verity {
		digest, protected, err := r.repo.Verity(sum)
		if err != nil {
			return nil, err
		}
		if !protected {
			r.unprotected.Add(1)
		}
		n.Digest = digest[:]
	}
	return n, nil
}

// writeComposefs writes the image by which the initramfs mounts the deployment.
func (d *deployer) writeComposefs(ctx context.Context) error {
	if !d.o.Root.Composefs.Wanted() {
		return nil
	}
	image, err := d.composefsImage(ctx)
	if err != nil {
		return err
	}
	var digest composefs.Digest
	err = d.inDeployment(func(t *beneath.Dir) error {
		h := composefs.NewHash()
		err := t.Create(ComposefsName, 0o644, func(w io.Writer) error {
			_, err := image.WriteTo(io.MultiWriter(w, h))
			return err
		})
		if err != nil {
			return err
		}
		digest = composefs.Digest(h.Sum(nil))
		return d.repo.Protect(t.FD(), ComposefsName, t.Full(ComposefsName), digest)
	})
	if err != nil {
		return fmt.Errorf("writing the composefs image of the deployment: %w", err)
	}
	d.dep.Composefs = digest.String()
	return d.checkDigest(digest)
}

// composefsImage lays out the image. Where it must have the digest that the commit names, the
// objects are read again, as libostree would.
func (d *deployer) composefsImage(ctx context.Context) (*composefs.Image, error) {
	if verity := d.repo.Config().Verity; verity || d.o.Tree == nil {
		image, _, err := ComposefsImage(ctx, d.repo, d.dep.Commit, verity)
		return image, err
	}
	return imageOfNode(d.repo, d.o.Tree, false)
}

// checkDigest compares the digest of the image with the one in the commit by which the initramfs
// checks it: of a container image that is the commit that the image holds, which is signed.
func (d *deployer) checkDigest(digest composefs.Digest) error {
	if !d.o.Root.Verity {
		return nil
	}
	sum := d.dep.Commit
	c, err := d.repo.LoadCommit(sum)
	if err == nil && d.o.Root.Signed && !c.Parent.IsZero() {
		sum = c.Parent
		c, err = d.repo.LoadCommit(sum)
	}
	if err != nil {
		return err
	}
	var want []byte
	if v, ok := c.Value(keyComposefsDigest); ok {
		want, err = v.Bytes()
	}
	switch {
	case err != nil:
		return fmt.Errorf("reading %s of commit %s: %w", keyComposefsDigest, sum, err)
	case bytes.Equal(want, digest[:]) || want == nil && !d.o.Root.Signed:
		return nil
	case d.o.Root.Signed:
		return &ComposefsError{fmt.Sprintf("the signed commit %s names the digest %x, and the composefs image of all layers has %s; to do: sign the tree that is deployed, since layers over the commit change it",
			sum, want, digest)}
	}
	return fmt.Errorf("commit %s names the composefs digest %x, and the image of its tree has %s", sum, want, digest)
}
