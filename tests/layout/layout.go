// Package layout makes small OCI image layouts for tests: from tar files, or by one more layer on a
// layout that exists.
//
// Images that the tests give the installer belong here; reading images as the installer does not:
// that is rootfs/image, and these layouts must stay an independent account of the format.
package layout

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is a layer in a layout: its compressed blob, and the digest of the tar inside.
type Layer struct {
	Blob   v1.Descriptor
	DiffID digest.Digest
}

// Options are the labels and fields of an image.
type Options struct {
	Tag     string            // the reference name in the index
	Labels  map[string]string // of the configuration
	Created time.Time         // of the configuration

	Architecture string // of the configuration, as Go names it; "" = this machine's
}

// Write makes the directory dir, an OCI image layout with one image of the given layer tars, lowest
// first.
func Write(dir string, tars []string, o Options) error {
	if err := prepare(dir); err != nil {
		return err
	}
	layers := make([]Layer, len(tars))
	for i, name := range tars {
		l, err := addTarFile(dir, name)
		if err != nil {
			return fmt.Errorf("adding layer %s: %w", name, err)
		}
		layers[i] = l
	}
	return writeImage(dir, layers, o)
}

func prepare(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return fmt.Errorf("making an OCI layout: %w", err)
	}
	marker, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, v1.ImageLayoutFile), marker, 0o644)
}

func addTarFile(dir, name string) (Layer, error) {
	f, err := os.Open(name)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	return AddLayer(dir, f)
}

// AddLayer compresses a layer's tar into a blob of the layout dir. Nothing refers to it yet.
func AddLayer(dir string, tar io.Reader) (Layer, error) {
	f, err := os.CreateTemp(filepath.Join(dir, "blobs"), "layer")
	if err != nil {
		return Layer{}, err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	z := pgzip.NewWriter(io.MultiWriter(f, packed))
	if err := z.SetConcurrency(1<<20, runtime.NumCPU()); err != nil {
		return Layer{}, err
	}
	if _, err := io.Copy(io.MultiWriter(z, plain), tar); err != nil {
		return Layer{}, err
	}
	if err := z.Close(); err != nil {
		return Layer{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return Layer{}, err
	}
	id := digest.NewDigest(digest.SHA256, packed)
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return Layer{}, err
	}
	if err := os.Rename(f.Name(), blobPath(dir, id)); err != nil {
		return Layer{}, err
	}
	return Layer{
		Blob:   v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: id, Size: size},
		DiffID: digest.NewDigest(digest.SHA256, plain),
	}, nil
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func writeImage(dir string, layers []Layer, o Options) error {
	created := o.Created.UTC()
	config := v1.Image{
		Created:  &created,
		Platform: v1.Platform{Architecture: cmp.Or(o.Architecture, runtime.GOARCH), OS: "linux"},
		Config:   v1.ImageConfig{Labels: o.Labels, Env: []string{"PATH=/usr/sbin:/usr/bin"}},
		RootFS:   v1.RootFS{Type: "layers"},
	}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID)
		config.History = append(config.History, v1.History{Created: &created, CreatedBy: "tests"})
		manifest.Layers = append(manifest.Layers, l.Blob)
	}
	return commit(dir, config, manifest, o.Tag)
}

// commit writes configuration, manifest and an index that has only this image.
func commit(dir string, config v1.Image, manifest v1.Manifest, tag string) error {
	var err error
	if manifest.Config, err = addJSON(dir, v1.MediaTypeImageConfig, config); err != nil {
		return err
	}
	d, err := addJSON(dir, v1.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{d},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, v1.ImageIndexFile), index, 0o644)
}

func addJSON(dir, mediaType string, v any) (v1.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, os.WriteFile(blobPath(dir, d.Digest), b, 0o644)
}
