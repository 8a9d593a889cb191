package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
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
	dockerConfigType       = "application/vnd.docker.container.image.v1+json"
)

const (
	maxJSON      = 4 << 20 // bytes of a manifest, index or configuration; registries accept no more
	maxLayers    = 1000    // well above the count that any tool writes or runs (overlayfs takes 500)
	maxManifests = 10_000  // of an index
	maxLookedAt  = 64      // manifests that are read to distinguish images from artifacts
	maxNested    = 8       // indexes within indexes
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

// isIndex recognises an index by its media type or, where that is missing, by its shape.
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

// descriptors reads the list of an index.
func descriptors(body []byte) ([]v1.Descriptor, error) {
	var index struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("parsing the index: %w", err)
	}
	return decodeAll(index.Manifests, maxManifests, "manifests")
}

// decodeAll decodes the elements of a list after their count is known to be bounded: an empty one
// takes 3 bytes of JSON, and many times that in memory.
func decodeAll(list []json.RawMessage, most int, what string) ([]v1.Descriptor, error) {
	if len(list) > most {
		return nil, fmt.Errorf("%d %s are listed, more than %d", len(list), what, most)
	}
	out := make([]v1.Descriptor, len(list))
	for i, raw := range list {
		if err := json.Unmarshal(raw, &out[i]); err != nil {
			return nil, fmt.Errorf("parsing the list of %s: %w", what, err)
		}
	}
	return out, nil
}

// isAttached reports whether a descriptor says that it is no image, but something about one: an
// attestation of BuildKit, a signature, or another artifact that refers to an image.
func isAttached(d v1.Descriptor) bool {
	unknown := d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
	switch {
	case unknown, d.Annotations["vnd.docker.reference.type"] != "", attachedTag.MatchString(d.Annotations[v1.AnnotationRefName]):
		return true
	}
	return d.ArtifactType != "" && !imageConfigType(d.ArtifactType)
}

// attachedTag is the form of tags by which cosign, and registries without an interface for
// referrers, attach artifacts to an image.
var attachedTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.[a-z]+)?$`)

func imageConfigType(mediaType string) bool {
	return mediaType == "" || mediaType == v1.MediaTypeImageConfig || mediaType == dockerConfigType
}

// isArtifact reports whether a manifest is of something else than an image, though its descriptor
// does not say so.
func isArtifact(body []byte) bool {
	var m struct {
		ArtifactType string          `json:"artifactType"`
		Subject      json.RawMessage `json:"subject"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Layers []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(body, &m) != nil {
		return false // the error comes with the image
	}
	if m.Subject != nil || m.ArtifactType != "" && !imageConfigType(m.ArtifactType) || !imageConfigType(m.Config.MediaType) {
		return true
	}
	layers, err := decodeAll(m.Layers, maxLayers, "layers")
	for _, l := range layers {
		if err == nil && checkLayerType(l.MediaType) != nil && !strings.Contains(l.MediaType, "encrypted") {
			return true
		}
	}
	return false
}

// images leaves out the descriptors that are of no image, unless none is left then, and those that
// are listed again. read returns a manifest; it is called only where more than one is left.
func images(all []v1.Descriptor, read func(v1.Descriptor) ([]byte, error)) []v1.Descriptor {
	seen := map[digest.Digest]bool{}
	found := without(without(all, isAttached), func(d v1.Descriptor) bool {
		known := seen[d.Digest]
		seen[d.Digest] = true
		return known
	})
	if len(found) > 1 && len(found) <= maxLookedAt {
		found = without(found, func(d v1.Descriptor) bool {
			body, err := read(d)
			return err == nil && !isIndex(d.MediaType, body) && isArtifact(body)
		})
	}
	return found
}

func without(all []v1.Descriptor, is func(v1.Descriptor) bool) []v1.Descriptor {
	var found []v1.Descriptor
	for _, d := range all {
		if !is(d) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return all
	}
	return found
}

// choosePlatform picks from an index the manifest, or the nested index, for a platform. An entry
// that names no platform is taken only if it is the only one.
func choosePlatform(body []byte, p Platform, read func(v1.Descriptor) ([]byte, error)) (v1.Descriptor, error) {
	all, err := descriptors(body)
	if err != nil {
		return v1.Descriptor{}, err
	}
	p = p.withDefaults()
	var plain, found []v1.Descriptor
	var offered []string
	for _, d := range without(all, isAttached) {
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
		return leastVariant(images(found, read)), nil
	}
	if plain = images(plain, read); len(plain) == 1 && len(offered) == 0 {
		return plain[0], nil
	}
	if len(offered) > maxLookedAt {
		offered = append(offered[:maxLookedAt], "…")
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
	var parsed struct {
		v1.Manifest
		Layers []json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(body, &parsed); err != nil {
		return nil, fmt.Errorf("parsing the manifest: %w", err)
	}
	m := parsed.Manifest
	if m.Config.Digest == "" {
		return nil, errors.New("the manifest names no configuration: it is not that of an image")
	}
	if !imageConfigType(m.Config.MediaType) {
		return nil, fmt.Errorf("the manifest is that of an artifact, such as an attestation or a signature, and not of an image: its configuration has the media type %.256q", m.Config.MediaType)
	}
	var err error
	if m.Layers, err = decodeAll(parsed.Layers, maxLayers, "layers"); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
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

// imageConfig is the part of a configuration that is read (OCI image specification, config.md).
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
	if img.BaseLayers, err = c.baseLayers(); err != nil {
		return nil, err
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
