package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Append makes the layout dst from the only image of the layout src and one more layer on top of it.
// Labels are added to those of src. Blobs are hard links where the file system allows.
func Append(src, dst string, tar io.Reader, labels map[string]string) error {
	config, manifest, tag, err := Read(src)
	if err != nil {
		return err
	}
	if err := prepare(dst); err != nil {
		return err
	}
	for _, l := range manifest.Layers {
		if err := copyBlob(src, dst, l.Digest); err != nil {
			return fmt.Errorf("copying a layer of %s: %w", src, err)
		}
	}
	top, err := AddLayer(dst, tar)
	if err != nil {
		return fmt.Errorf("adding a layer to %s: %w", dst, err)
	}
	manifest.Layers = append(manifest.Layers, top.Blob)
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, top.DiffID)
	config.History = append(config.History, v1.History{Created: config.Created, CreatedBy: "tests"})
	if config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	maps.Copy(config.Config.Labels, labels)
	return commit(dst, config, manifest, tag)
}

// Read returns the first image of the layout dir: its configuration, its manifest, and its tag.
func Read(dir string) (v1.Image, v1.Manifest, string, error) {
	var config v1.Image
	var manifest v1.Manifest
	d, err := First(dir)
	if err != nil {
		return config, manifest, "", err
	}
	if err := readJSON(blobPath(dir, d.Digest), &manifest); err != nil {
		return config, manifest, "", err
	}
	err = readJSON(blobPath(dir, manifest.Config.Digest), &config)
	return config, manifest, d.Annotations[v1.AnnotationRefName], err
}

// First returns the descriptor of the first image in the layout's index.
func First(dir string) (v1.Descriptor, error) {
	var index v1.Index
	if err := readJSON(filepath.Join(dir, v1.ImageIndexFile), &index); err != nil {
		return v1.Descriptor{}, err
	}
	if len(index.Manifests) == 0 {
		return v1.Descriptor{}, fmt.Errorf("the layout %s has no image", dir)
	}
	return index.Manifests[0], nil
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

func copyBlob(src, dst string, d digest.Digest) error {
	from, to := blobPath(src, d), blobPath(dst, d)
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}
