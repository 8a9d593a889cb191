package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ServedLayer is a layer's blob as its source serves it: some sources keep layers uncompressed,
// whatever the manifest says. The caller closes it.
type ServedLayer struct {
	io.ReadCloser
	Digest string // of the bytes served: the manifest's, or the layer's diff-id
	Size   int64  // bytes; -1 if the source does not say
}

// OpenLayer opens the blob of a layer by its index in Layers. Its bytes are not verified. Faults of
// the source are a [*SourceError].
func (img *Image) OpenLayer(ctx context.Context, index int) (*ServedLayer, error) {
	src, ok := img.src.(*layeredSource)
	if !ok {
		return nil, &SourceError{Ref: img.Ref.String(), Err: errors.New("it has no layers")}
	}
	served := src.served[index]
	blob, err := src.blobs.open(ctx, served)
	if err != nil {
		return nil, &SourceError{Ref: img.Ref.String(), Layer: img.Layers[index].Digest, Err: fmt.Errorf("opening the blob: %w", err)}
	}
	return &ServedLayer{ReadCloser: blob, Digest: served.digest, Size: served.size}, nil
}

// File returns the place of the blob in a file of this machine, if it has one. The file is open as
// long as the layer is.
func (l *ServedLayer) File() (file *os.File, offset int64, ok bool) {
	f, ok := l.ReadCloser.(*layoutFile)
	if !ok {
		return nil, 0, false
	}
	r, offset, _ := f.Outer()
	file, ok = r.(*os.File)
	return file, offset, ok
}

// Reopen returns the same image with its layers in archive, an OCI archive to which they were
// copied. The signature policy was applied when the image was opened. The archive is closed with
// the returned image, or at once if there is an error; the image itself is not needed any more, nor
// closed.
func (img *Image) Reopen(archive *os.File) (_ *Image, err error) {
	a := &layoutArchive{file: archive, index: map[string]extent{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := a.scan(); err != nil {
		return nil, &SourceError{Ref: img.Ref.String(), Err: err}
	}
	again := *img
	again.Layers = slices.Clone(img.Layers)
	return &again, (&layout{files: a}).attach(&again)
}
