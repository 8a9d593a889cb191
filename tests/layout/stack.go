package layout

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stack is a layout in the making: an image that grows by layers.
type Stack struct {
	dir      string
	config   v1.Image
	manifest v1.Manifest
	tag      string
}

// Begin makes the layout dst with the layers of the only image of the layout src. Its index comes
// with Finish.
func Begin(src, dst string) (*Stack, error) {
	s := &Stack{dir: dst}
	var err error
	if s.config, s.manifest, s.tag, err = Read(src); err != nil {
		return nil, err
	}
	if err := prepare(dst); err != nil {
		return nil, err
	}
	for _, l := range s.manifest.Layers {
		if err := copyBlob(src, dst, l.Digest); err != nil {
			return nil, fmt.Errorf("copying a layer of %s: %w", src, err)
		}
	}
	return s, nil
}

// Keep drops all layers but the lowest n.
func (s *Stack) Keep(n int) {
	s.manifest.Layers = s.manifest.Layers[:n]
	s.config.RootFS.DiffIDs = s.config.RootFS.DiffIDs[:n]
	s.config.History = nil // it speaks of layers that may be gone
}

// Add puts a layer on top, which fill writes.
func (s *Stack) Add(fill func(*tar.Writer) error) error {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		w.CloseWithError(errors.Join(fill(tw), tw.Close()))
	}()
	err := s.AddTar(r)
	r.CloseWithError(err) // so that fill ends, whatever was read of it
	return err
}

// AddTar puts a layer on top that is a tar already.
func (s *Stack) AddTar(r io.Reader) error {
	top, err := AddLayer(s.dir, r)
	if err != nil {
		return err
	}
	s.manifest.Layers = append(s.manifest.Layers, top.Blob)
	s.config.RootFS.DiffIDs = append(s.config.RootFS.DiffIDs, top.DiffID)
	s.config.History = append(s.config.History, v1.History{Created: s.config.Created, CreatedBy: "tests"})
	return nil
}

// SetCreated sets the image's time.
func (s *Stack) SetCreated(t time.Time) { s.config.Created = &t }

// Finish writes the configuration, with these labels besides its own, the manifest and the index.
func (s *Stack) Finish(labels map[string]string) error {
	if s.config.Config.Labels == nil {
		s.config.Config.Labels = map[string]string{}
	}
	maps.Copy(s.config.Config.Labels, labels)
	return commit(s.dir, s.config, s.manifest, s.tag)
}

// Decompress makes the layout dst: the only image of the layout src, its layers uncompressed.
func Decompress(src, dst string) error {
	config, manifest, tag, err := Read(src)
	if err != nil {
		return err
	}
	if err := prepare(dst); err != nil {
		return err
	}
	for i, l := range manifest.Layers {
		if manifest.Layers[i], err = plainBlob(src, dst, l); err != nil {
			return fmt.Errorf("decompressing layer %s: %w", l.Digest, err)
		}
	}
	return commit(dst, config, manifest, tag)
}

func plainBlob(src, dst string, l v1.Descriptor) (plain v1.Descriptor, err error) {
	in, err := os.Open(blobPath(src, l.Digest))
	if err != nil {
		return plain, err
	}
	defer in.Close()
	z, err := gzip.NewReader(bufio.NewReaderSize(in, 1<<20))
	if err != nil {
		return plain, err
	}
	out, err := os.CreateTemp(filepath.Join(dst, "blobs"), "layer")
	if err != nil {
		return plain, err
	}
	defer os.Remove(out.Name()) // after the rename there is none
	defer out.Close()
	sum := digest.SHA256.Digester()
	size, err := io.Copy(io.MultiWriter(out, sum.Hash()), z)
	if err != nil {
		return plain, err
	}
	plain = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: sum.Digest(), Size: size}
	return plain, errors.Join(os.Chmod(out.Name(), 0o644), os.Rename(out.Name(), blobPath(dst, plain.Digest)))
}
