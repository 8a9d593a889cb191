package image

import (
	"context"
	"errors"
	"os"
	"runtime"
)

// source is the origin of an opened image's bytes.
type source interface {
	importTree(ctx context.Context, img *Image, sink Sink, o ImportOptions) (*Tree, error)
	// scanTree is importTree with contents going to out alone, most of them unread.
	scanTree(ctx context.Context, img *Image, out *scanner, o ImportOptions) (*Tree, error)
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
	if o.MaxTree <= 0 {
		o.MaxTree = DefaultMaxTree
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU() + 1 // of the streams, some wait for the device
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	return o
}

// openImage dispatches on the transport, and makes every error one of the source's.
func openImage(ctx context.Context, ref Ref, o OpenOptions) (*Image, error) {
	if !knownTransport(ref.Transport) {
		return nil, &UnknownTransportError{Ref: ref.String()}
	}
	img, err := openTransport(ctx, ref, o)
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if known := (*SourceError)(nil); errors.As(err, &known) {
		return nil, err
	}
	if temp := (*TempError)(nil); errors.As(err, &temp) {
		return nil, err
	}
	return nil, &SourceError{Ref: ref.String(), Err: hint(ref, err)}
}

func openTransport(ctx context.Context, ref Ref, o OpenOptions) (*Image, error) {
	switch ref.Transport {
	case TransportRootfs:
		return openRootfs(ref, o)
	case TransportOCI:
		name := parseLayoutName(ref.Name)
		root, err := os.OpenRoot(name.path)
		if err != nil {
			return nil, err
		}
		return openLayout(ctx, ref, name, &layoutDir{root: root}, o)
	case TransportOCIArchive:
		name := parseLayoutName(ref.Name)
		archive, err := openArchive(name.path)
		if err != nil {
			return nil, err
		}
		return openLayout(ctx, ref, name, archive, o)
	case TransportDockerArchive:
		return openDockerArchive(ctx, ref, o)
	case TransportContainersStorage:
		return openStorage(ctx, ref, o)
	}
	return openLibrary(ctx, ref, o)
}
