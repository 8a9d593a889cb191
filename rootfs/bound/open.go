package bound

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"installer/rootfs/image"

	"go.podman.io/image/v5/storage"
)

// Image is a bound image that was found.
type Image struct {
	Binding
	*image.Image
	Name string // the one it was found by
}

// MissingError says that a bound image is not in this machine's storage.
type MissingError struct {
	Binding Binding
	Err     error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the bound image %s (%s) is not in the containers-storage of this machine: %v; to do: podman pull %s",
		e.Binding.Image, e.Binding.File, e.Err, e.Binding.Image)
}

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// OpenStored opens the bound image in this machine's storage. The error is a [*MissingError] if it
// is not there. The caller closes it.
func (b Binding) OpenStored(ctx context.Context, o image.OpenOptions) (*Image, error) {
	for _, name := range b.Names {
		img, err := image.Open(ctx, image.Ref{Transport: image.TransportContainersStorage, Name: name.String()}, o)
		if err == nil {
			return &Image{b, img, name.String()}, nil
		}
		if source := (*image.SourceError)(nil); errors.Is(err, fs.ErrNotExist) && errors.As(err, &source) {
			return nil, &MissingError{b, source.Err}
		}
		if !errors.Is(err, storage.ErrNoSuchImage) {
			return nil, fmt.Errorf("opening the bound image %s (%s): %w", b.Image, b.File, err)
		}
	}
	return nil, &MissingError{b, errors.New("no image of that name")}
}

// OpenRemote opens the bound image in its registry: the image that its name means now is written
// later. The caller closes it.
func (b Binding) OpenRemote(ctx context.Context, o image.OpenOptions) (*Image, error) {
	if len(b.Names) > 1 {
		return nil, fmt.Errorf("the bound image %s (%s) has no registry in its name to be pulled from: name it in full", b.Image, b.File)
	}
	name := b.Names[0].String()
	img, err := image.Open(ctx, image.Ref{Transport: image.TransportDocker, Name: name}, o)
	if err != nil {
		return nil, fmt.Errorf("opening the bound image %s (%s): %w", b.Image, b.File, err)
	}
	return &Image{b, img, name}, nil
}
