package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// servedBlob is a layer as its transport serves it, which may be other than the
// manifest says: some transports keep layers uncompressed.
type servedBlob struct {
	digest    string // of the bytes served
	size      int64  // -1: unknown
	mediaType string
	storeID   string // of the layer in containers-storage
}

// blobSource opens the layers of one image. It is used concurrently.
type blobSource interface {
	open(ctx context.Context, b servedBlob) (io.ReadCloser, error)
	close() error
}

// layeredSource is an image made of layers.
type layeredSource struct {
	blobs  blobSource
	served []servedBlob // one for each of the image's layers
}

func (s *layeredSource) close() error { return s.blobs.close() }

func (s *layeredSource) size() (sum int64) {
	for _, b := range s.served {
		if b.size < 0 {
			return -1
		}
		sum += b.size
	}
	return sum
}

// layerImport is one import of a layered image.
type layerImport struct {
	img     *Image
	src     *layeredSource
	opts    ImportOptions
	chunks  *sync.Pool
	entries atomic.Int64
	budget  *budget
	out     storer
	skimmer storer        // of a scan that may pass over contents; else nil
	results []layerResult // one for each layer
	records bool          // a scan does, for the import that follows
	before  *scanned      // what an import repeats; nil: it parses the layers
}

type layerResult struct {
	root     *Node
	dropped  map[string]int
	ignored  Ignored
	record   *recording
	verified bool // the blob, and what it unpacks to
	changed  bool // since the scan
}

func (s *layeredSource) importTree(ctx context.Context, img *Image, sink Sink, o ImportOptions) (*Tree, error) {
	li := &layerImport{img: img, src: s, opts: o, chunks: newChunkPool(), budget: newBudget(o.MaxTree), results: make([]layerResult, len(img.Layers))}
	li.entries.Store(o.MaxEntries)
	if img.scanned.repeats(o) {
		li.before, img.scanned = img.scanned, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	pool := newStorePool(gctx, g, sink, o.Parallel)
	li.out = pool
	g.Go(func() error {
		defer close(pool.jobs)
		return li.readAll(gctx)
	})
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("importing %s: %w", img.Ref, context.Cause(ctx))
		}
		return nil, err
	}
	if li.before != nil {
		return li.before.tree, nil
	}
	return li.tree()
}

// readAll reads the layers in parallel, the largest first, so that none of
// those is left to run alone at the end. Equal layers are read once.
func (li *layerImport) readAll(ctx context.Context) error {
	first, order := li.distinct()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(li.opts.Parallel)
	for _, i := range order {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return li.readLayer(ctx, i)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range li.results {
		if first[i] != i {
			li.results[i] = li.results[first[i]]
			li.opts.Progress(max(0, li.src.served[i].size))
		}
	}
	return nil
}

// distinct tells for each layer the first one that is the same blob, and these
// in the order to read them.
func (li *layerImport) distinct() (first, order []int) {
	seen := map[[2]string]int{}
	for i, l := range li.img.Layers {
		key := [2]string{l.Digest, l.DiffID}
		if _, known := seen[key]; !known {
			seen[key] = i
			order = append(order, i)
		}
		first = append(first, seen[key])
	}
	sort.SliceStable(order, func(a, b int) bool {
		return li.src.served[order[a]].size > li.src.served[order[b]].size
	})
	return first, order
}

// readLayer reads one layer. What is the source's fault becomes a SourceError.
func (li *layerImport) readLayer(ctx context.Context, i int) error {
	err := li.readBlob(ctx, i)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if sink := (*sinkError)(nil); errors.As(err, &sink) {
		return fmt.Errorf("layer %s: %w", li.img.Layers[i].Digest, err)
	}
	err = li.damage(ctx, i, err)
	fault := &SourceError{Ref: li.img.Ref.String(), Layer: li.img.Layers[i].Digest, Err: err}
	if e := (*entryError)(nil); errors.As(err, &e) {
		fault.Entry, fault.Err = e.entry, e.err
	}
	return fault
}

// damage looks for the cause of an error of reading a layer. Bytes that are not those of the
// manifest make the layer unreadable in any way. A registry is not asked a second time.
func (li *layerImport) damage(ctx context.Context, i int, err error) error {
	if _, remote := li.src.blobs.(*spool); remote || errors.As(err, new(*damagedError)) {
		return err
	}
	served := li.src.served[i]
	blob, openErr := li.src.blobs.open(ctx, served)
	if openErr != nil {
		return err
	}
	raw := startPump(ctx, blob, li.chunks, li.rawBounds(served), func(int64) {})
	defer func() {
		raw.stop()
		blob.Close() // ends a read that is blocked
		raw.wait()
	}()
	var damaged *damagedError
	if rawErr := checkRaw(raw, served); errors.As(rawErr, &damaged) {
		return fmt.Errorf("%w (seen first: %v)", rawErr, err)
	}
	return err
}

func (li *layerImport) readBlob(ctx context.Context, i int) error {
	served := li.src.served[i]
	blob, err := li.src.blobs.open(ctx, served)
	if err != nil {
		return fmt.Errorf("opening the blob: %w", err)
	}
	if seeker, ok := blob.(io.ReadSeekCloser); ok && li.skims(i) {
		defer blob.Close()
		return li.skim(ctx, i, seeker)
	}
	raw := startPump(ctx, blob, li.chunks, li.rawBounds(served), li.opts.Progress)
	defer func() {
		raw.stop()
		blob.Close() // ends a read that is blocked
		raw.wait()
	}()
	result, err := li.readStream(ctx, i, raw)
	if err != nil {
		return err
	}
	if err := checkRaw(raw, served); err != nil {
		return err
	}
	if result.changed { // and is right now
		return errOtherHeaders
	}
	result.verified = true
	li.results[i] = result
	return nil
}

func (li *layerImport) rawBounds(served servedBlob) bounds {
	if served.size < 0 {
		return li.plainBounds()
	}
	return bounds{least: served.size, most: served.size, tooLong: errors.New("the blob is longer than its manifest says")}
}

func (li *layerImport) plainBounds() bounds {
	return bounds{most: li.opts.MaxLayerSize, tooLong: li.tooLarge()}
}

func (li *layerImport) tooLarge() error {
	return fmt.Errorf("the layer exceeds the limit of %d bytes uncompressed", li.opts.MaxLayerSize)
}

// readStream decompresses, verifies and parses a layer's raw bytes.
func (li *layerImport) readStream(ctx context.Context, i int, raw *pump) (_ layerResult, err error) {
	plain, how, free, err := decompress(raw, li.src.served[i].mediaType)
	if err != nil {
		return layerResult{}, err
	}
	defer free()
	// An uncompressed blob is its own tar: hashing it once is enough.
	if how == uncompressed && li.img.Layers[i].DiffID == li.src.served[i].digest {
		if li.src.served[i].size > li.opts.MaxLayerSize {
			return layerResult{}, li.tooLarge()
		}
		return li.unpack(i, plain)
	}
	// The same bytes unpack to the same: once is enough there, too.
	known := li.before != nil && li.before.layers[i].verified
	var out *pump
	if known {
		out = startPlainPump(ctx, plain, li.chunks, li.plainBounds())
	} else {
		out = startPump(ctx, plain, li.chunks, li.plainBounds(), func(int64) {})
	}
	defer func() {
		out.stop()
		if err != nil {
			raw.stop() // what out waits for; nobody reads raw after an error
		}
		out.wait()
	}()
	result, err := li.unpack(i, out)
	if err != nil {
		return layerResult{}, err
	}
	digest, err := out.finish()
	if err != nil {
		return layerResult{}, fmt.Errorf("reading on to the layer's end: %w", err)
	}
	if want := li.img.Layers[i].DiffID; !known && digest != want {
		return layerResult{}, mismatch("the SHA-256 of the uncompressed layer (diff-id)", want, digest)
	}
	return result, nil
}

// unpack sends a layer's contents where they belong, in a tree that is known or that it makes.
func (li *layerImport) unpack(i int, plain io.Reader) (layerResult, error) {
	if li.before == nil {
		return li.parse(plain, li.out)
	}
	result := li.before.layers[i]
	var err error
	result.changed, err = result.record.replay(plain, li.out)
	return result, err
}

func (li *layerImport) parse(plain io.Reader, to storer) (layerResult, error) {
	r := tarReader{tree: newBuilder(li.budget), out: to, entries: &li.entries, bytes: li.opts.MaxLayerSize}
	if li.records {
		r.record = newRecording()
	}
	root, err := r.read(plain)
	return layerResult{root: root, dropped: r.tree.dropped, ignored: r.tree.ignored, record: r.record}, err
}

// checkRaw compares all of a blob with its descriptor.
func checkRaw(raw *pump, want servedBlob) error {
	digest, err := raw.finish()
	if err != nil {
		return fmt.Errorf("reading on to the blob's end: %w", err)
	}
	if digest != want.digest {
		return mismatch("the SHA-256 of the blob", want.digest, digest)
	}
	return nil
}
