package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Bounds of the contents that a scan keeps, in bytes: configuration files are small.
const (
	maxKeptFile  = 1 << 20
	maxKeptTotal = 32 << 20
)

// ScanOptions says what a scan keeps and bounds it. The zero value is usable.
type ScanOptions struct {
	ImportOptions

	// Files are paths of the merged tree, where /etc is usr/etc, whose contents
	// are kept: files, and directories with the files right in them. Symbolic
	// links are followed.
	Files []string
}

// Inventory is what an image holds, known without its contents.
type Inventory struct {
	Tree *Tree // as an import returns it, but that no node has a Content

	// Stored is what the files of all layers take when each distinct one is
	// stored once, in bytes, each file rounded up to StoredBlock. The files of a
	// directory are not read: they count as distinct though they may be equal.
	Stored int64
	// Objects is the number of distinct files and symbolic links.
	Objects int64

	kept map[*Node][]byte
}

// StoredBlock is the unit in which file systems allocate, in bytes.
const StoredBlock = 4096

// Scan reads the image for what it holds, before anything is stored: all that
// can be refused of it can be refused then. Every layer is read and decompressed
// once, and its digest compared with the manifest's; of a directory only the
// metadata is read. Faults of the source are a [*SourceError].
func (img *Image) Scan(ctx context.Context, o ScanOptions) (*Inventory, error) {
	o.ImportOptions = o.ImportOptions.withDefaults()
	inv, err := img.scan(ctx, o, nil)
	if err != nil {
		return nil, err
	}
	missed := inv.unkeptSizes(o.Files)
	if len(missed) == 0 {
		return inv, nil
	}
	// Links lead from a wanted name to content under another one, which the
	// stream had shown before or in another layer. Only its size is known of it.
	o.Progress = func(int64) {}
	return img.scan(ctx, o, missed)
}

func (img *Image) scan(ctx context.Context, o ScanOptions, sizes map[int64]bool) (*Inventory, error) {
	s := newScanner(o.Files, sizes)
	tree, err := img.src.scanTree(ctx, img, s, o.ImportOptions)
	if err != nil {
		return nil, err
	}
	return &Inventory{Tree: tree, Stored: s.stored, Objects: s.objects, kept: s.kept}, nil
}

// unkeptSizes gives the sizes of wanted files whose contents were not kept.
func (inv *Inventory) unkeptSizes(files []string) map[int64]bool {
	sizes := map[int64]bool{}
	fsys := inv.FS()
	add := func(n *Node) {
		if _, kept := inv.kept[n]; n.IsRegular() && !kept && n.Size <= maxKeptFile {
			sizes[n.Size] = true
		}
	}
	for _, name := range files {
		at, n, err := fsys.resolve(name, true)
		if err != nil {
			continue // not in the image
		}
		add(n)
		for child := range n.Children {
			if _, c, err := fsys.resolve(path.Join(at, child), true); err == nil {
				add(c)
			}
		}
	}
	return sizes
}

func (s *layeredSource) scanTree(ctx context.Context, img *Image, out *scanner, o ImportOptions) (*Tree, error) {
	li := &layerImport{img: img, src: s, opts: o, chunks: newChunkPool(), out: out, scan: true, results: make([]layerResult, len(img.Layers))}
	li.entries.Store(o.MaxEntries)
	if remote, ok := s.blobs.(*spool); ok {
		remote.fill(true)
		defer remote.fill(false)
	}
	if err := li.readAll(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("looking through %s: %w", img.Ref, context.Cause(ctx))
		}
		return nil, err
	}
	return li.tree()
}

func (s *rootfsSource) scanTree(ctx context.Context, img *Image, out *scanner, o ImportOptions) (*Tree, error) {
	w := newTreeWalk(ctx, skimmer{out}, o)
	if err := walkDir(s.root, "", w); err != nil {
		return nil, s.fault(ctx, img, err)
	}
	return assemble(img.Ref, []*Node{w.tree.root}, w.tree.dropped)
}

// scanStream parses a decompressed layer. Its diff-id is left to the import:
// the blob, which is all that the diff-id speaks of, has a digest of its own.
func (li *layerImport) scanStream(plain io.Reader) (*Node, map[string]int, error) {
	limited := &boundedReader{src: plain, left: li.opts.MaxLayerSize, tooLong: li.tooLarge()}
	root, dropped, err := li.parse(limited)
	if err != nil {
		return nil, nil, err
	}
	// The compression's own checksum stands at the end.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return nil, nil, fmt.Errorf("reading on to the layer's end: %w", err)
	}
	return root, dropped, nil
}

// boundedReader fails where a stream goes on for too long.
type boundedReader struct {
	src     io.Reader
	left    int64
	tooLong error
}

func (r *boundedReader) Read(b []byte) (int, error) {
	n, err := r.src.Read(b)
	if r.left -= int64(n); r.left < 0 {
		return 0, r.tooLong
	}
	return n, err
}

// wantedFiles tells which contents are kept, by the paths of the merged tree.
type wantedFiles map[string]bool

// has takes a path of a layer.
func (w wantedFiles) has(name string) bool {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if rest, ok := strings.CutPrefix(name, "etc/"); ok {
		name = "usr/etc/" + rest
	}
	return w[name] || w[path.Dir(name)]
}

var errKeptTooMuch = errors.New("the files that configure an installation are larger than anything sensible")
