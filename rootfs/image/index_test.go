package image

import (
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// artifact adds a manifest of something that is attached to an image.
func (l *testLayout) artifact(config, layer, kind string, subject *v1.Descriptor) v1.Descriptor {
	m := map[string]any{
		"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "config": l.blob(config, []byte("{}")),
		"layers": []v1.Descriptor{l.blob(layer, []byte(`{"a":"`+kind+`"}`))},
	}
	if kind != "" {
		m["artifactType"] = kind
	}
	if subject != nil {
		m["subject"] = subject
	}
	return l.json(v1.MediaTypeImageManifest, m)
}

// A layout or index with one image, and with anything that is attached to it, is that image.
func TestOneImageAmongArtifacts(t *testing.T) {
	const empty, inToto = "application/vnd.oci.empty.v1+json", "application/vnd.in-toto+json"
	l := newTestLayout(t)
	img := l.image(plainLayer(tarOf(t, file("x", "x"))))
	here := &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	attestation := l.artifact(v1.MediaTypeImageConfig, inToto, "", nil)
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": img.Digest.String()}
	unmarked := l.artifact(v1.MediaTypeImageConfig, inToto, "x", nil)
	cosign := l.artifact(v1.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json", "", nil)
	tagged := cosign
	tagged.Annotations = map[string]string{v1.AnnotationRefName: strings.Replace(img.Digest.String(), ":", "-", 1) + ".sig"}
	referrer := l.artifact(empty, "application/octet-stream", "application/spdx+json", &img)
	typed := referrer
	typed.ArtifactType = "application/spdx+json"
	samePlatform := referrer
	samePlatform.Platform = here
	withPlatform := img
	withPlatform.Platform = here
	all := []v1.Descriptor{attestation, unmarked, cosign, tagged, referrer, typed}
	for name, list := range map[string][]v1.Descriptor{
		"attestation": {attestation, img}, "unmarked attestation": {img, unmarked}, "signature": {cosign, img}, "signature by tag": {img, tagged},
		"referrer": {referrer, img}, "referrer by type": {img, typed}, "all": append(all, img), "platforms": append(all[:6:6], samePlatform, withPlatform),
		"listed twice": {img, attestation, img},
	} {
		l.index(list...)
		got, err := Open(t.Context(), Ref{TransportOCI, l.dir}, accept(t))
		if err != nil || got.ManifestDigest != img.Digest.String() {
			t.Errorf("layout, %s: %v", name, err)
		}
		if err == nil {
			must(t, got.Close())
		}
		nested := l.json(v1.MediaTypeImageIndex, v1.Index{Manifests: list})
		if got, err = Open(t.Context(), l.tag("latest", nested), accept(t)); err != nil || got.ManifestDigest != img.Digest.String() {
			t.Errorf("index, %s: %v", name, err)
		}
		if err == nil {
			must(t, got.Close())
		}
	}
	l.index(attestation)
	if _, err := Open(t.Context(), Ref{TransportOCI, l.dir}, accept(t)); err == nil {
		t.Error("an attestation alone passes for an image")
	}
	l.index(referrer)
	if _, err := Open(t.Context(), Ref{TransportOCI, l.dir}, accept(t)); err == nil || !strings.Contains(err.Error(), "artifact") {
		t.Errorf("an artifact alone: %v", err)
	}
	other := l.image(plainLayer(tarOf(t, file("y", "y"))))
	l.index(img, img, other)
	if _, err := Open(t.Context(), Ref{TransportOCI, l.dir}, accept(t)); err == nil || !strings.Contains(err.Error(), "more than one") {
		t.Errorf("two images: %v", err)
	}
}

// The memory that a few bytes of JSON or tar can claim is bounded.
func TestMemoryIsBounded(t *testing.T) {
	deep := strings.Repeat("d/", 2000)
	var dirs, links, attrs []item
	for i := range 1000 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		dirs = append(dirs, file(name+"/"+deep+"x", ""))
		attrs = append(attrs, file(name, "").xattr("user.a", strings.Repeat("a", 60<<10)).xattr("user.b", strings.Repeat("b", 60<<10)))
		for range 10 {
			links = append(links, symlink(name+"/"+strings.Repeat("l", 200)+string(rune('a'+len(links)%26)), strings.Repeat("t", 4000)))
		}
	}
	for name, c := range map[string]struct {
		items []item
		limit ImportOptions
		says  string
	}{
		"implied directories": {dirs, ImportOptions{}, "implies"},
		"attributes":          {attrs, ImportOptions{}, "extended attributes"},
		"link targets":        {links, ImportOptions{MaxTree: 16 << 20}, "memory"},
	} {
		layer := zstdLayer(t, tarOf(t, c.items...))
		img, err := Open(t.Context(), layoutOf(t, layer), accept(t))
		must(t, err)
		used := peak(t, func() { _, err = img.Import(t.Context(), &memorySink{}, c.limit) })
		must(t, img.Close())
		var fault *SourceError
		if !errors.As(err, &fault) || fault.Layer != digestOf(layer.blob) || fault.Entry == "" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %.300v", name, err)
		}
		if used > 256<<20 {
			t.Errorf("%s: %d bytes of layer took %d MiB", name, len(layer.blob), used>>20)
		}
	}
}

func TestLongListsOfJSON(t *testing.T) {
	many := "[" + strings.Repeat("{},", 1_300_000) + "{}]"
	var indexErr, manifestErr error
	config, err := json.Marshal(v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromString("x"), Size: 1})
	must(t, err)
	used := peak(t, func() {
		_, indexErr = descriptors([]byte(`{"manifests":` + many + `}`))
		_, manifestErr = parseManifest([]byte(`{"config":`+string(config)+`,"layers":`+many+`}`), v1.MediaTypeImageManifest)
	})
	if indexErr == nil || manifestErr == nil || !strings.Contains(manifestErr.Error(), "layers") {
		t.Errorf("lists of a million: %v, %v", indexErr, manifestErr)
	}
	if used > 256<<20 {
		t.Errorf("8 MB of JSON took %d MiB", used>>20)
	}
}

// peak returns how far the heap grows while fn runs, in bytes.
func peak(t *testing.T, fn func()) (grown uint64) {
	t.Helper()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, heap())
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	fn()
	close(done)
	<-ended
	return most - min(before, most)
}
