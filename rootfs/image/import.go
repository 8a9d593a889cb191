package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// parsed is a layer that was parsed.
type parsed struct {
	root    *Node
	dropped map[string]int
	ignored Ignored
}

// parser makes trees of an image's layers, within the bounds of all of them together.
type parser struct {
	entries atomic.Int64 // left
	budget  *budget
	bytes   int64 // that the files of one layer may have
	layers  []parsed
	img     *Image
	label   Labeller
	base    *baseReader // nil unless the lower layers hold an ostree commit
}

func newParser(img *Image, o ImportOptions) *parser {
	p := &parser{budget: newBudget(o.MaxTree), bytes: o.MaxLayerSize, layers: make([]parsed, len(img.Layers)), img: img, label: o.Label}
	p.entries.Store(o.MaxEntries)
	if img.BaseLayers > 0 {
		p.base = newBaseReader(img.BaseLayers, p.budget)
		p.base.compares = o.OwnNames
	}
	return p
}

// commitTask returns the task that reads the base commit, which comes before all others; nil if the
// image has none.
func (p *parser) commitTask() layerTask {
	if p.base == nil {
		return nil
	}
	return &commitTask{p}
}

// commitTask reads the metadata objects of an image's first layer, and makes the tree of its
// commit.
type commitTask struct{ *parser }

func (t *commitTask) unpack(_ int, plain io.Reader) error {
	c := newCommitReader(t.base)
	var left atomic.Int64 // the layer's entries are counted when its files are read
	left.Store(t.entries.Load())
	r := objectReader{entries: &left, use: c.use}
	if err := r.read(plain); err != nil {
		return err
	}
	return c.finish(&t.entries)
}

func (t *commitTask) hashes(int) bool    { return true }
func (t *commitTask) verified(int) error { return nil }

// parseBase reads the file objects in one of the base's layers, and sends their contents to out.
func (p *parser) parseBase(i int, plain io.Reader, out storer, record *recording) error {
	files := p.base.fileReader(i, out, p.bytes, record)
	r := objectReader{entries: &p.entries, record: record, use: files.use}
	if err := r.read(plain); err != nil {
		return err
	}
	p.layers[i] = parsed{root: files.root}
	if i == 0 {
		p.layers[i].root = p.base.root
	}
	return files.lists.finish()
}

// parse reads the tar of layer i, and sends its contents to out.
func (p *parser) parse(i int, plain io.Reader, out storer, record *recording) error {
	if i < p.img.BaseLayers {
		return p.parseBase(i, plain, out, record)
	}
	r := tarReader{tree: newBuilder(p.budget), out: out, entries: &p.entries, bytes: p.bytes, record: record}
	r.tree.overBase, r.tree.label = p.base != nil, p.label
	root, err := r.read(plain)
	p.layers[i] = parsed{root: root, dropped: r.tree.dropped, ignored: r.tree.ignored}
	return err
}

// tree merges the layers, of which some stand for equal ones.
func (p *parser) tree(first []int) (*Tree, error) {
	roots := make([]*Node, len(first))
	dropped := map[string]int{}
	var ignored Ignored
	for i, f := range first {
		roots[i] = p.layers[f].root
		for name, n := range p.layers[f].dropped {
			dropped[name] += n
		}
		ignored.join(p.layers[f].ignored)
	}
	if p.base == nil {
		return assemble(p.img.Ref, roots, dropped, ignored)
	}
	tree, err := p.base.assemble(roots, dropped, ignored)
	if err != nil {
		return nil, p.img.layerFault(0, err)
	}
	return tree, nil
}

// layerImport parses layers and stores their contents.
type layerImport struct {
	*parser
	out storer
}

func (t *layerImport) unpack(i int, plain io.Reader) error { return t.parse(i, plain, t.out, nil) }
func (t *layerImport) hashes(int) bool                     { return true }
func (t *layerImport) verified(int) error                  { return nil }

func (s *layeredSource) importTree(ctx context.Context, img *Image, sink Sink, o ImportOptions) (*Tree, error) {
	if before := img.scanned; before.repeats(o) {
		img.scanned = nil // the replay fills its tree
		_, err := s.store(ctx, img, sink, o, func(out storer) layerTask { return newReplay(before, out) })
		return before.treeUnless(err)
	}
	p := newParser(img, o)
	first, err := s.store(ctx, img, sink, o, func(out storer) layerTask { return &layerImport{p, out} })
	if err != nil {
		return nil, err
	}
	return p.tree(first)
}

// store reads all layers for a task that sends contents to the sink. When it returns, nothing of it
// is running.
func (s *layeredSource) store(ctx context.Context, img *Image, sink Sink, o ImportOptions, task func(storer) layerTask) (first []int, err error) {
	g, gctx := errgroup.WithContext(ctx)
	pool := newStorePool(gctx, g, sink, o.Parallel)
	pool.ownNames = o.OwnNames
	g.Go(func() (err error) {
		defer close(pool.jobs)
		first, err = s.layers(img, o).readAll(gctx, task(pool))
		return err
	})
	err = g.Wait()
	switch e := (*entryError)(nil); {
	case err == nil:
		return first, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("importing %s: %w", img.Ref, context.Cause(ctx))
	case errors.As(err, &e) && !errors.As(err, new(*SourceError)): // found by a worker
		return nil, &SourceError{Ref: img.Ref.String(), Entry: e.entry, Err: e.err}
	}
	return nil, err
}
