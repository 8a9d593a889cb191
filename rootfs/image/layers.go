package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"
)

// servedBlob is a layer as its transport serves it, which may be other than the manifest says: some
// transports keep layers uncompressed.
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

// layers reads the blobs of one image: it checks their lengths and digests, and decompresses them.
type layers struct {
	img    *Image
	src    *layeredSource
	opts   ImportOptions
	chunks *sync.Pool
}

func (s *layeredSource) layers(img *Image, o ImportOptions) *layers {
	return &layers{img: img, src: s, opts: o, chunks: newChunkPool()}
}

// layerTask is the use that is made of an image's layers: a scan, an import, or the replay of a
// scan. Its methods are called concurrently, for different layers.
type layerTask interface {
	// unpack reads the tar of layer i. It may leave bytes after the tar's end.
	unpack(i int, plain io.Reader) error
	// hashes reports whether the tar must be compared with its diff-id.
	hashes(i int) bool
	// verified is called once the blob of layer i is known to be right, and so is the tar.
	verified(i int) error
}

// skimmer is a task that can do without most of a layer that lies uncompressed in a file.
type skimmer interface {
	// skims reports whether that is so for layer i.
	skims(i int) bool
	skim(ctx context.Context, i int, blob io.ReadSeeker) error
}

// readAll reads the layers in parallel, the largest first, so that none of those is left to run
// alone at the end. Equal layers are read once: first has the layer that stands for each.
func (l *layers) readAll(ctx context.Context, task layerTask) (first []int, err error) {
	if err := l.readCommit(ctx, task); err != nil {
		return nil, err
	}
	first, order := l.distinct()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(l.opts.Parallel)
	for _, i := range order {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return l.readLayer(ctx, i, task)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range first {
		if first[i] != i {
			l.opts.Progress(max(0, l.src.served[i].size))
		}
	}
	return first, nil
}

// readCommit reads the layer of an ostree commit for a task that must know the commit before it
// reads the layers. The layer is read again with them.
func (l *layers) readCommit(ctx context.Context, task layerTask) error {
	t, ok := task.(interface{ commitTask() layerTask })
	if !ok {
		return nil
	}
	first := t.commitTask()
	if first == nil {
		return nil
	}
	quiet := *l
	quiet.opts.Progress = func(int64) {}
	return quiet.readLayer(ctx, 0, first)
}

// distinct returns for each layer the first one that is the same blob and is read in the same way,
// and these in the order to read them.
func (l *layers) distinct() (first, order []int) {
	type layer struct {
		digest, diffID string
		commit, base   bool
	}
	seen := map[layer]int{}
	for i, info := range l.img.Layers {
		key := layer{info.Digest, info.DiffID, i == 0 && l.img.BaseLayers > 0, i < l.img.BaseLayers}
		if _, known := seen[key]; !known {
			seen[key] = i
			order = append(order, i)
		}
		first = append(first, seen[key])
	}
	sort.SliceStable(order, func(a, b int) bool {
		return l.src.served[order[a]].size > l.src.served[order[b]].size
	})
	return first, order
}

// readLayer reads one layer. A fault of the source becomes a SourceError.
func (l *layers) readLayer(ctx context.Context, i int, task layerTask) error {
	err := l.readBlob(ctx, i, task)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	digest := l.img.Layers[i].Digest
	if sink := (*sinkError)(nil); errors.As(err, &sink) {
		return fmt.Errorf("layer %s: %w", digest, err)
	}
	return l.img.layerFault(i, l.damage(ctx, i, err))
}

// layerFault blames a layer, and the entry that err names.
func (img *Image) layerFault(i int, err error) *SourceError {
	fault := &SourceError{Ref: img.Ref.String(), Layer: img.Layers[i].Digest, Err: err}
	if e := (*entryError)(nil); errors.As(err, &e) {
		fault.Entry, fault.Err = e.entry, e.err
	}
	return fault
}

// damage looks for the cause of an error of reading a layer: bytes that are not those of the
// manifest can make a layer unreadable in any way. A registry is not asked a second time.
func (l *layers) damage(ctx context.Context, i int, err error) error {
	if _, remote := l.src.blobs.(*spool); remote || errors.As(err, new(*damagedError)) {
		return err
	}
	served := l.src.served[i]
	blob, openErr := l.src.blobs.open(ctx, served)
	if openErr != nil {
		return err
	}
	raw := startPump(ctx, blob, l.chunks, l.rawBounds(served), func(int64) {})
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

func (l *layers) readBlob(ctx context.Context, i int, task layerTask) error {
	served := l.src.served[i]
	blob, err := l.src.blobs.open(ctx, served)
	if err != nil {
		return fmt.Errorf("opening the blob: %w", err)
	}
	if s, ok := task.(skimmer); ok && s.skims(i) && served.digest == l.img.Layers[i].DiffID {
		if seeker, ok := blob.(io.ReadSeekCloser); ok {
			defer blob.Close()
			return l.skim(ctx, i, s, seeker)
		}
	}
	raw := startPump(ctx, blob, l.chunks, l.rawBounds(served), l.opts.Progress)
	defer func() {
		raw.stop()
		blob.Close() // ends a read that is blocked
		raw.wait()
	}()
	if err := l.readStream(ctx, i, raw, task); err != nil {
		return err
	}
	if err := checkRaw(raw, served); err != nil {
		return err
	}
	return task.verified(i)
}

// skim leaves a layer to a task that reads only a part of it. Nothing is hashed: the import
// verifies such a layer.
func (l *layers) skim(ctx context.Context, i int, task skimmer, blob io.ReadSeeker) error {
	size := max(0, l.src.served[i].size)
	if size > l.opts.MaxLayerSize {
		return l.tooLarge()
	}
	if err := task.skim(ctx, i, blob); err != nil {
		return err
	}
	l.opts.Progress(size)
	return nil
}

func (l *layers) rawBounds(served servedBlob) bounds {
	if served.size < 0 {
		return l.plainBounds()
	}
	return bounds{least: served.size, most: served.size, tooLong: errors.New("the blob is longer than its manifest says")}
}

func (l *layers) plainBounds() bounds {
	return bounds{most: l.opts.MaxLayerSize, tooLong: l.tooLarge()}
}

func (l *layers) tooLarge() error {
	return fmt.Errorf("the layer exceeds the limit of %d bytes uncompressed", l.opts.MaxLayerSize)
}

// readStream decompresses a layer's raw bytes for the task, and compares the tar with its digest.
func (l *layers) readStream(ctx context.Context, i int, raw *pump, task layerTask) (err error) {
	plain, how, free, err := decompress(raw, l.src.served[i].mediaType)
	if err != nil {
		return err
	}
	defer free()
	// An uncompressed blob is its own tar: hashing it once is enough.
	if how == uncompressed && l.img.Layers[i].DiffID == l.src.served[i].digest {
		if l.src.served[i].size > l.opts.MaxLayerSize {
			return l.tooLarge()
		}
		return task.unpack(i, plain)
	}
	hashed := task.hashes(i)
	var out *pump
	if hashed {
		out = startPump(ctx, plain, l.chunks, l.plainBounds(), func(int64) {})
	} else {
		out = startPlainPump(ctx, plain, l.chunks, l.plainBounds())
	}
	defer func() {
		out.stop()
		if err != nil {
			raw.stop() // out waits for it; nobody reads raw after an error
		}
		out.wait()
	}()
	if err := task.unpack(i, out); err != nil {
		return err
	}
	digest, err := out.finish()
	if err != nil {
		return fmt.Errorf("reading on to the layer's end: %w", err)
	}
	if want := l.img.Layers[i].DiffID; hashed && digest != want {
		return mismatch("the SHA-256 of the uncompressed layer (diff-id)", want, digest)
	}
	return nil
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
