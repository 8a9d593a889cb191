package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"installer/rootfs/xattr"
)

// Bounds of the contents that a scan keeps, in bytes: configuration files are small.
const (
	maxKeptFile  = 1 << 20
	maxKeptTotal = 32 << 20
)

// ScanOptions chooses the contents that a scan keeps, and bounds it. The zero value is usable.
type ScanOptions struct {
	ImportOptions

	// Files are paths of the merged tree, where /etc is usr/etc, whose contents are kept: files,
	// and directories with the files right in them. Symbolic links are followed. A path with a
	// star is a pattern of files, as path.Match reads it.
	Files []string

	// Exact has every content read, so that equal ones count once.
	Exact bool

	// Look, which may be nil, returns a function that reads the content of a regular file as far as
	// it likes, or nil. [Inventory.Seen] returns its result. It is called concurrently.
	Look func(name string, mode uint32) func(content io.Reader) (any, error)
}

// Inventory describes an image without its contents.
type Inventory struct {
	Tree *Tree // as an import returns it, but that no node of a plain layer has a Content

	// Stored is the size of the files of all layers when each distinct one is stored once, in
	// bytes, each file rounded up to StoredBlock.
	Stored int64
	// Objects is the number of distinct files and symbolic links.
	Objects int64
	// Bound says that contents were passed over, and count as distinct though they may be equal:
	// Stored and Objects are upper bounds, and an exact scan may find less. The files of a
	// directory are never read.
	Bound bool

	kept map[*Node][]byte
	seen map[*Node]any // findings of ScanOptions.Look

	keys   map[*Node]contentKey // of the contents that were read
	passed []*Node              // of the others
}

// Seen returns the finding of ScanOptions.Look in the file that name leads to, or nil.
func (inv *Inventory) Seen(name string) any {
	_, n, err := inv.FS().resolve(name, true)
	if err != nil {
		return nil
	}
	return inv.seen[n]
}

// Notes are sentences about the image that whoever installs it should read.
func (t *Tree) Notes() (notes []string) {
	if i := t.Ignored; i.Count > 0 {
		attributes := fmt.Sprintf("%d extended attributes of the image", i.Count)
		if i.Count == 1 {
			attributes = "1 extended attribute of the image"
		}
		notes = append(notes, fmt.Sprintf("%s, which Linux does not know, left out as container engines do; the first is %s of %s",
			attributes, quoteShort(i.First), quoteShort(i.Entry)))
	}
	return notes
}

// CheckRoom returns a [*SourceError] that names the first file of a layer whose extended attributes
// do not fit in the file system that the tree will be written to, or that the file system would not
// show as an object has them.
func (img *Image) CheckRoom(tree *Tree, room xattr.Room) error {
	for i, layer := range tree.Layers {
		err := layer.Walk(func(path string, n *Node) error {
			if len(n.Xattrs) == 0 {
				return nil
			}
			err := room.Check(n.Xattrs)
			if err == nil && n.Content != (ContentID{}) { // an object of an ostree commit
				err = room.Shows(n.Mode, n.Xattrs)
			}
			if err == nil {
				return nil
			}
			fault := &SourceError{Ref: img.Ref.String(), Entry: layerPath(path), Err: err}
			if len(tree.Layers) == len(img.Layers) { // the tree may be a merged one
				fault.Layer = img.Layers[i].Digest
			}
			return fault
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// layerPath is the path that an entry has in its layer, where /etc was not moved yet.
func layerPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "usr/etc"); ok && (rest == "" || rest[0] == '/') {
		return "etc" + rest
	}
	return path
}

// StoredBlock is the unit in which file systems allocate, in bytes.
const StoredBlock = 4096

// Scan looks through the image before anything is stored. Compressed layers are read and verified
// as by [Image.Import], which compares again the blobs that it reads again. Of layers that lie
// uncompressed in files only the headers are read, and of a directory the metadata: that the
// digests are right is then left to the import. Faults of the source are a [*SourceError].
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
	// Links lead from a wanted name to content under another one, which the stream had shown before
	// or in another layer. Only its size is known of it.
	o.Progress = func(int64) {}
	return img.scan(ctx, o, missed)
}

func (img *Image) scan(ctx context.Context, o ScanOptions, sizes map[int64]bool) (*Inventory, error) {
	s := newScanner(o.Files, sizes)
	s.exact, s.look = o.Exact, o.Look
	tree, err := img.src.scanTree(ctx, img, s, o.ImportOptions)
	if err != nil {
		return nil, err
	}
	inv := &Inventory{Tree: tree, Bound: len(s.passed) > 0, kept: s.kept, seen: s.found, keys: s.keys, passed: s.passed}
	inv.count()
	return inv, nil
}

// count adds up the objects that the contents become with the labels that their nodes have.
func (inv *Inventory) count() {
	type object struct {
		contentKey
		label string
	}
	inv.Stored, inv.Objects = 0, 0
	add := func(n *Node) {
		inv.Objects++
		inv.Stored += (n.Size + StoredBlock - 1) / StoredBlock * StoredBlock
	}
	seen := make(map[object]bool, len(inv.keys))
	for n, key := range inv.keys {
		if o := (object{key, n.Label()}); !seen[o] {
			seen[o] = true
			add(n)
		}
	}
	for _, n := range inv.passed {
		add(n)
	}
}

// Relabel labels the tree, as [Tree.Relabel] does, and counts the objects anew.
func (inv *Inventory) Relabel(label, before Labeller) {
	known := len(inv.Tree.Twins)
	inv.Tree.Relabel(label, before)
	for _, t := range inv.Tree.Twins[known:] {
		if key, read := inv.keys[t.Of]; read {
			inv.keys[t.Node] = key
		} else {
			inv.passed = append(inv.passed, t.Node)
		}
		if data, kept := inv.kept[t.Of]; kept {
			inv.kept[t.Node] = data
		}
		if found, looked := inv.seen[t.Of]; looked {
			inv.seen[t.Node] = found
		}
	}
	inv.count()
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
	for _, name := range matches(fsys, files) {
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

// layerScan parses layers, and writes down where their contents are.
type layerScan struct {
	*parser
	out     storer
	records []recordedLayer
}

func (t *layerScan) unpack(i int, plain io.Reader) error { return t.look(i, plain, t.out) }
func (t *layerScan) hashes(int) bool                     { return true }

func (t *layerScan) verified(i int) error {
	t.records[i].verified = true
	return nil
}

func (t *layerScan) look(i int, plain io.Reader, out storer) error {
	t.records[i].recording = newRecording()
	return t.parse(i, plain, out, t.records[i].recording)
}

// leaveOut removes the files that the tree leaves out from the contents that the import is to
// store, and from those that s has counted.
func (t *layerScan) leaveOut(s *scanner) {
	if t.base == nil || len(t.base.leftOut) == 0 {
		return
	}
	for _, r := range t.records {
		if r.recording == nil {
			continue
		}
		for i, c := range r.contents {
			if t.base.leftOut[c.node] {
				r.contents[i].node = nil
			}
		}
	}
	maps.DeleteFunc(s.keys, func(n *Node, _ contentKey) bool { return t.base.leftOut[n] })
	s.passed = slices.DeleteFunc(s.passed, func(n *Node) bool { return t.base.leftOut[n] })
}

// layerSkim is a scan that reads of uncompressed layers only the headers, but for the layers of an
// ostree commit, whose objects are compared with their names before anything is stored.
type layerSkim struct {
	*layerScan
	passing storer
}

func (t *layerSkim) skims(i int) bool { return i >= t.img.BaseLayers }

func (t *layerSkim) skim(ctx context.Context, i int, blob io.ReadSeeker) error {
	return t.look(i, &skipReader{ctx: ctx, src: blob}, t.passing)
}

func (s *layeredSource) scanTree(ctx context.Context, img *Image, out *scanner, o ImportOptions) (*Tree, error) {
	scan := &layerScan{parser: newParser(img, o), out: out, records: make([]recordedLayer, len(img.Layers))}
	var task layerTask = scan
	if !out.exact {
		task = &layerSkim{scan, passOver{out}}
	}
	if remote, ok := s.blobs.(*spool); ok {
		remote.fill(true)
		defer remote.fill(false)
	}
	first, err := s.layers(img, o).readAll(ctx, task)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("looking through %s: %w", img.Ref, context.Cause(ctx))
		}
		return nil, err
	}
	tree, err := scan.tree(first)
	if err == nil {
		scan.leaveOut(out)
		img.scanned = &scanned{limits: o.limits(), tree: tree, layers: scan.records}
	}
	return tree, err
}

func (s *rootfsSource) scanTree(ctx context.Context, img *Image, out *scanner, o ImportOptions) (*Tree, error) {
	w := newTreeWalk(ctx, passOver{out}, o)
	if err := walkDir(s.root, "", w); err != nil {
		return nil, s.fault(ctx, img, err)
	}
	return assemble(img.Ref, []*Node{w.tree.root}, w.tree.dropped, w.tree.ignored)
}

// matches returns the names, with the paths that they match in place of the patterns.
func matches(fsys fs.FS, names []string) (found []string) {
	for _, name := range names {
		if !isPattern(name) {
			found = append(found, name)
		} else if paths, err := fs.Glob(fsys, name); err == nil { // a pattern of the program is well-formed
			found = append(found, paths...)
		}
	}
	return found
}

func isPattern(name string) bool { return strings.Contains(name, "*") }

// wantedFiles says which contents are kept, by the paths of the merged tree.
type wantedFiles struct {
	names    map[string]bool
	patterns []string
}

func wanted(files []string) wantedFiles {
	w := wantedFiles{names: map[string]bool{}}
	for _, name := range files {
		if isPattern(name) {
			w.patterns = append(w.patterns, name)
		} else {
			w.names[name] = true
		}
	}
	return w
}

// has takes a path of a layer.
func (w wantedFiles) has(name string) bool {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if rest, ok := strings.CutPrefix(name, "etc/"); ok {
		name = "usr/etc/" + rest
	}
	return w.names[name] || w.names[path.Dir(name)] || slices.ContainsFunc(w.patterns, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}

var errKeptTooMuch = errors.New("the files that configure an installation are larger than anything sensible")
