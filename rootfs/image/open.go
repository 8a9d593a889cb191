package image

import (
	"context"
	"runtime"
)

// source is what an opened image reads from.
type source interface {
	importTree(ctx context.Context, img *Image, sink Sink, o ImportOptions) (*Tree, error)
	// size is the bytes that importTree reads, -1 if unknown.
	size() int64
	close() error
}

func (o ImportOptions) withDefaults() ImportOptions {
	if o.MaxLayerSize <= 0 {
		o.MaxLayerSize = DefaultMaxLayerSize
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU()
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	return o
}

// openImage dispatches on the transport.
func openImage(_ context.Context, ref Ref, _ OpenOptions) (*Image, error) {
	return nil, &UnknownTransportError{Ref: ref.String()}
}
