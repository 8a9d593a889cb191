package bound

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"installer/rootfs/image"
)

// Size is the space that bound images take on a root file system.
type Size struct {
	Content int64 // bytes, in whole blocks
	Inodes  int64
}

// Space that a layer takes beside its files, and guesses for one that has not been read.
const (
	layerInodes = 8        // directories, links and records
	entryRecord = 512      // bytes kept of each header, so that the tar can be made again
	unpacking   = 4        // an ordinary layer, gzip or zstd, grows to thrice its size
	fileSize    = 16 << 10 // bytes of a file, on average
)

// Measure adds up the space that images take, a layer that several have once. It is known of images
// in this machine's storage. Of a registry's images only the compressed size is known, so their
// sizes are a guess.
func Measure(ctx context.Context, images []*Image) (sum Size, err error) {
	seen := map[string]bool{}
	for _, img := range images {
		for i, layer := range img.Layers {
			if seen[layer.DiffID] {
				continue
			}
			seen[layer.DiffID] = true
			size := guess(layer)
			if img.Ref.Transport == image.TransportContainersStorage {
				if size, err = img.measureLayer(ctx, i); err != nil {
					return sum, fmt.Errorf("measuring the bound image %s: %w", img.Name, err)
				}
			}
			sum.Content += size.Content + layerInodes*image.StoredBlock
			sum.Inodes += size.Inodes + layerInodes
		}
	}
	return sum, nil
}

func guess(layer image.LayerInfo) Size {
	bytes := max(layer.Size*unpacking, layer.Uncompressed)
	return Size{Content: bytes, Inodes: bytes / fileSize}
}

// measureLayer reads a layer's headers. Contents are passed over where it lies in files.
func (img *Image) measureLayer(ctx context.Context, index int) (s Size, err error) {
	layer, err := img.OpenLayer(ctx, index)
	if err != nil {
		return s, err
	}
	defer layer.Close()
	headers := tar.NewReader(layer.ReadCloser) // itself, for it may seek
	for ctx.Err() == nil {
		h, err := headers.Next()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return s, &image.SourceError{Ref: img.Ref.String(), Layer: img.Layers[index].Digest, Err: err}
		}
		s.Inodes++
		s.Content += (h.Size+image.StoredBlock-1)/image.StoredBlock*image.StoredBlock + entryRecord
		if h.Typeflag == tar.TypeDir {
			s.Content += image.StoredBlock
		}
	}
	return s, context.Cause(ctx)
}
