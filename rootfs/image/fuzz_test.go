package image

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzManifest: no manifest, index or configuration makes the reader panic, or gets a digest past
// the check that would lead out of a layout's directory.
func FuzzManifest(f *testing.F) {
	digest := digestOf([]byte("blob"))
	blob := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: "sha256:" + "00", Size: 4}
	for _, v := range []any{
		v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: blob, Layers: []v1.Descriptor{blob, blob}},
		v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{blob, {Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}}},
		v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "sha256:00", digest)
		f.Add([]byte(text), v1.MediaTypeImageManifest)
		f.Add([]byte(text), "")
	}
	f.Fuzz(func(t *testing.T, body []byte, mediaType string) {
		isIndex(mediaType, body)
		if d, err := choosePlatform(body, Platform{}, func(v1.Descriptor) ([]byte, error) { return body, nil }); err == nil {
			plainDigest(t, string(d.Digest))
		}
		m, err := parseManifest(body, mediaType)
		if err != nil {
			return
		}
		plainDigest(t, string(m.Config.Digest))
		for _, l := range m.Layers {
			plainDigest(t, string(l.Digest))
		}
		if c, err := parseConfig(body, len(m.Layers)); err == nil && c == nil {
			t.Error("no configuration and no error")
		}
	})
}

// plainDigest wants a digest that checkDigest takes to be a name without a way out.
func plainDigest(t *testing.T, d string) {
	if checkDigest(d) == nil && strings.ContainsAny(d, "/\\\x00") {
		t.Errorf("digest %q is accepted", d)
	}
}
