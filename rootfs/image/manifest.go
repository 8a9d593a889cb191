package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types (distribution specification, "Image Manifest Version 2, Schema 2").
const (
	dockerManifestType     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestListType = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1Prefix    = "application/vnd.docker.distribution.manifest.v1"
)

const (
	maxJSON   = 4 << 20 // bytes of a manifest, index or configuration; registries accept no more
	maxLayers = 1000    // well above what any tool writes or runs (overlayfs takes 500)
	maxNested = 8       // indexes within indexes
)

// digestOf names bytes as manifests do.
func digestOf(b []byte) string { return digest.FromBytes(b).String() }

// checkDigest accepts SHA-256 alone.
func checkDigest(d string) error {
	parsed, err := digest.Parse(d)
	if err != nil {
		return fmt.Errorf("digest %s: %w", quoteShort(d), err)
	}
	if parsed.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %s: only sha256 is supported", quoteShort(d))
	}
	return nil
}

// isIndex tells an index by its media type or, where that is missing, by its shape.
func isIndex(mediaType string, body []byte) bool {
	switch mediaType {
	case v1.MediaTypeImageIndex, dockerManifestListType:
		return true
	case v1.MediaTypeImageManifest, dockerManifestType:
		return false
	}
	var shape struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
	}
	if json.Unmarshal(body, &shape) != nil {
		return false
	}
	if shape.MediaType != "" && shape.MediaType != mediaType {
		return isIndex(shape.MediaType, nil)
	}
	return shape.Manifests != nil && shape.Config == nil
}

// choosePlatform picks from an index the manifest, or the nested index, for a
// platform. An entry that names no platform is taken only if it is the only one.
func choosePlatform(body []byte, p Platform) (v1.Descriptor, error) {
	var index v1.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return v1.Descriptor{}, fmt.Errorf("parsing the index: %w", err)
	}
	p = p.withDefaults()
	var plain, found []v1.Descriptor
	var offered []string
	for _, d := range index.Manifests {
		switch {
		case d.Platform == nil:
			plain = append(plain, d)
			continue
		case d.Platform.OS == p.OS && d.Platform.Architecture == p.Architecture && (p.Variant == "" || d.Platform.Variant == p.Variant):
			found = append(found, d)
		}
		offered = append(offered, strings.TrimSuffix(d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant, "/"))
	}
	if len(found) > 0 {
		return leastVariant(found), nil
	}
	if len(plain) == 1 && len(offered) == 0 {
		return plain[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("the index has no image for %s; it has %s", p, strings.Join(offered, ", "))
}

// leastVariant prefers the image without a variant: it runs everywhere.
func leastVariant(found []v1.Descriptor) v1.Descriptor {
	for _, d := range found {
		if d.Platform.Variant == "" {
			return d
		}
	}
	return found[0]
}

func (p Platform) withDefaults() Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	return p
}

// String is the platform as OS/ARCHITECTURE[/VARIANT].
func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// parseManifest reads a manifest of OCI or of Docker's schema 2, whose fields are the same.
func parseManifest(body []byte, mediaType string) (*v1.Manifest, error) {
	if strings.HasPrefix(mediaType, dockerSchema1Prefix) {
		return nil, errors.New("the manifest has Docker's schema 1, which is not supported: convert it with skopeo copy --format=oci")
	}
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("parsing the manifest: %w", err)
	}
	if m.Config.Digest == "" {
		return nil, errors.New("the manifest names no configuration: it is not that of an image")
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("the manifest lists %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkDigest(string(d.Digest)); err != nil {
			return nil, err
		}
		if d.Size < -1 {
			return nil, fmt.Errorf("the manifest gives %s a size of %d", d.Digest, d.Size)
		}
	}
	return &m, nil
}

// imageConfig is what is read from a configuration (OCI image specification, config.md).
type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Created      string `json:"created"`
	Config       struct {
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

func parseConfig(body []byte, layers int) (*imageConfig, error) {
	var c imageConfig
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("parsing the configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("the configuration has %d diff-ids for the manifest's %d layers", len(c.RootFS.DiffIDs), layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return nil, fmt.Errorf("diff-id: %w", err)
		}
	}
	if c.OS != "" && c.OS != "linux" {
		return nil, fmt.Errorf("the image is for %q, not for linux", c.OS)
	}
	return &c, nil
}

// newImage makes an Image of its manifest and configuration, verified already.
func newImage(ref Ref, manifestBody []byte, mediaType string, m *v1.Manifest, configBody []byte) (*Image, error) {
	c, err := parseConfig(configBody, len(m.Layers))
	if err != nil {
		return nil, err
	}
	img := &Image{
		Ref:            ref,
		Manifest:       manifestBody,
		ManifestType:   mediaType,
		ManifestDigest: digestOf(manifestBody),
		Config:         configBody,
		Labels:         c.Config.Labels,
		Architecture:   c.Architecture,
	}
	if img.Labels == nil {
		img.Labels = map[string]string{}
	}
	if img.Created, err = created(m.Annotations, c.Created); err != nil {
		return nil, err
	}
	for i, d := range m.Layers {
		if err := checkLayerType(d.MediaType); err != nil {
			return nil, &SourceError{Ref: ref.String(), Layer: d.Digest.String(), Err: err}
		}
		img.Layers = append(img.Layers, LayerInfo{
			Digest: d.Digest.String(), DiffID: c.RootFS.DiffIDs[i], Size: d.Size, MediaType: d.MediaType,
		})
	}
	return img, nil
}

// created takes the image's time from where ostree-ext takes it.
func created(annotations map[string]string, config string) (time.Time, error) {
	text := annotations[v1.AnnotationCreated]
	if text == "" {
		text = config
	}
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("creation time of the image: %w", err)
	}
	return t, nil
}
