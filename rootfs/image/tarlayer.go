package image

import (
	"context"
	"fmt"
	"io"
)

// TarLayer is a layer as the tar that it was made as. Its last Read returns an error in the place
// of io.EOF unless all of it, as served and as unpacked, is as the manifest and the configuration
// say. The caller closes it.
type TarLayer struct {
	fault  func(error) error
	served servedBlob
	diffID string
	blob   io.ReadCloser
	raw    *pump // nil until it is started, and so is plain
	plain  *pump
	free   func()
	err    error
}

// OpenTar opens a layer by its index in Layers. Faults of the source are a [*SourceError].
func (img *Image) OpenTar(ctx context.Context, index int, o ImportOptions) (*TarLayer, error) {
	layer, err := img.OpenLayer(ctx, index)
	if err != nil {
		return nil, err
	}
	info := img.Layers[index]
	l := &TarLayer{
		fault:  func(err error) error { return &SourceError{Ref: img.Ref.String(), Layer: info.Digest, Err: err} },
		served: img.src.(*layeredSource).served[index], diffID: info.DiffID, blob: layer.ReadCloser, free: func() {},
	}
	if err := l.start(ctx, o.withDefaults()); err != nil {
		l.Close()
		return nil, l.fault(err)
	}
	return l, nil
}

func (l *TarLayer) start(ctx context.Context, o ImportOptions) error {
	bounds := &layers{opts: o}
	chunks := newChunkPool()
	l.raw = startPump(ctx, l.blob, chunks, bounds.rawBounds(l.served), o.Progress)
	plain, _, free, err := decompress(l.raw, l.served.mediaType)
	if err != nil {
		return err
	}
	l.free = free
	l.plain = startPump(ctx, plain, chunks, bounds.plainBounds(), func(int64) {})
	return nil
}

// Read implements io.Reader.
func (l *TarLayer) Read(b []byte) (n int, err error) {
	if l.err != nil {
		return 0, l.err
	}
	if n, err = l.plain.Read(b); err == nil {
		return n, nil
	}
	if l.err = err; err == io.EOF {
		err = l.verify()
	}
	if err != nil {
		l.err = l.fault(err)
	}
	return n, l.err
}

// verify compares all that was read with its digests.
func (l *TarLayer) verify() error {
	digest, err := l.plain.finish()
	if err != nil {
		return fmt.Errorf("reading on to the layer's end: %w", err)
	}
	if digest != l.diffID {
		return mismatch("the SHA-256 of the uncompressed layer (diff-id)", l.diffID, digest)
	}
	return checkRaw(l.raw, l.served)
}

// Err returns the error that ended the reading, io.EOF if all was read and is right, nil before the
// end.
func (l *TarLayer) Err() error { return l.err }

// Close implements io.Closer. Nothing of the layer is running after it.
func (l *TarLayer) Close() error {
	for _, p := range []*pump{l.plain, l.raw} {
		if p != nil {
			p.stop()
		}
	}
	err := l.blob.Close() // ends a read that is blocked
	for _, p := range []*pump{l.plain, l.raw} {
		if p != nil {
			p.wait()
		}
	}
	l.free()
	return err
}
