package image

import (
	"context"
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
}

func newParser(img *Image, o ImportOptions) *parser {
	p := &parser{budget: newBudget(o.MaxTree), bytes: o.MaxLayerSize, layers: make([]parsed, len(img.Layers))}
	p.entries.Store(o.MaxEntries)
	return p
}

// parse reads the tar of layer i, and sends its contents to out.
func (p *parser) parse(i int, plain io.Reader, out storer, record *recording) error {
	r := tarReader{tree: newBuilder(p.budget), out: out, entries: &p.entries, bytes: p.bytes, record: record}
	root, err := r.read(plain)
	p.layers[i] = parsed{root: root, dropped: r.tree.dropped, ignored: r.tree.ignored}
	return err
}

// tree merges the layers, of which some stand for equal ones.
func (p *parser) tree(ref Ref, first []int) (*Tree, error) {
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
	return assemble(ref, roots, dropped, ignored)
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
	return p.tree(img.Ref, first)
}

// store reads all layers for a task that sends contents to the sink. When it returns, nothing of it
// is running.
func (s *layeredSource) store(ctx context.Context, img *Image, sink Sink, o ImportOptions, task func(storer) layerTask) (first []int, err error) {
	g, gctx := errgroup.WithContext(ctx)
	pool := newStorePool(gctx, g, sink, o.Parallel)
	g.Go(func() (err error) {
		defer close(pool.jobs)
		first, err = s.layers(img, o).readAll(gctx, task(pool))
		return err
	})
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("importing %s: %w", img.Ref, context.Cause(ctx))
		}
		return nil, err
	}
	return first, nil
}
