package image

import (
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// skopeo copies an image without a look at the host's policy.
func skopeo(t *testing.T, argv ...string) {
	t.Helper()
	run(t, append([]string{"skopeo", "--insecure-policy", "copy", "--quiet"}, argv...)...)
}

func TestEveryTransportGivesTheSameTree(t *testing.T) {
	layers := richLayers(t)
	source, docker := layoutOf(t, layers...), layoutOf(t, withoutZstd(t, layers)...)
	want := mustImport(t, source)
	work := t.TempDir()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	vfs := "[vfs@" + work + "/root+" + work + "/run]localhost/test:latest"
	overlay := "[overlay@" + work + "/overlay+" + work + "/overlayrun]localhost/test:latest"
	for _, c := range []struct {
		ref, options string
		from         Ref
	}{
		{"oci:" + work + "/zstd:tag", "--dest-compress-format=zstd", source},
		{"oci-archive:" + work + "/a.tar:tag", "-f=oci", source},
		{"dir:" + work + "/dir", "--dest-decompress", source},
		{"docker-archive:" + work + "/docker.tar:localhost/test:latest", "-f=v2s2", docker},
		{"containers-storage:" + vfs, "-f=oci", source},
		{"containers-storage:" + overlay, "-f=oci", source},
		{"docker://" + host + "/test/image:latest", "--dest-tls-verify=false", source},
	} {
		t.Run(c.ref[:strings.Index(c.ref, ":")], func(t *testing.T) {
			skopeo(t, c.options, c.from.String(), c.ref)
			ref, err := ParseRef(c.ref)
			must(t, err)
			o := accept(t)
			o.InsecureTLS = true
			o.TempDir = t.TempDir()
			img, err := Open(t.Context(), ref, o)
			must(t, err)
			must(t, img.Close())
			img, err = Open(t.Context(), ref, o) // closing must leave the source usable
			must(t, err)
			tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{})
			must(t, errors.Join(err, img.Close()))
			sameLines(t, c.ref, describe(tree.Root), describe(want.Root))
			for i, layer := range tree.Layers {
				sameLines(t, "layer", describe(layer), describe(want.Layers[i]))
			}
			if img.ManifestDigest != digestOf(img.Manifest) || img.Labels["containers.bootc"] != "1" || img.Architecture != runtime.GOARCH {
				t.Errorf("manifest digest %s, labels %v, architecture %s", img.ManifestDigest, img.Labels, img.Architecture)
			}
			noTemporaries(t, o.TempDir)
		})
	}
	noTemporaries(t, filepath.Join(work, "run"))
}

// noTemporaries fails if a file is left in a directory that may not exist.
func noTemporaries(t *testing.T, dir string) {
	t.Helper()
	left := run(t, "find", filepath.Dir(dir), "-path", dir+"/*", "-type", "f", "!", "-name", "*.lock", "!", "-name", "*.json")
	if left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestPlatformIsChosenFromNestedIndexes(t *testing.T) {
	l := newTestLayout(t)
	image := func(content, arch, variant string) v1.Descriptor {
		d := l.image(plainLayer(tarOf(t, file("usr/arch", content))))
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return d
	}
	attestation := l.image(plainLayer(tarOf(t, file("usr/arch", "none"))))
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	index := l.json(v1.MediaTypeImageIndex, v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{
		attestation, image("amd64 v3 ...", "amd64", "v3"), image("amd64", "amd64", ""), image("arm64..", "arm64", "v8"),
	}})
	outer := l.json(v1.MediaTypeImageIndex, v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{index}})
	ref := l.tag("multi", outer)
	for _, c := range []struct {
		platform Platform
		size     int64
	}{
		{Platform{Architecture: "amd64"}, int64(len("amd64"))},
		{Platform{Architecture: "amd64", Variant: "v3"}, int64(len("amd64 v3 ..."))},
		{Platform{OS: "linux", Architecture: "arm64"}, int64(len("arm64.."))},
	} {
		o := accept(t)
		o.Platform = c.platform
		img, err := Open(t.Context(), ref, o)
		must(t, err)
		tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{})
		must(t, errors.Join(err, img.Close()))
		if n := tree.Lookup("usr/arch"); n == nil || n.Size != c.size {
			t.Errorf("%v: wrong image: %+v", c.platform, n)
		}
	}
	o := accept(t)
	o.Platform.Architecture = "s390x"
	if _, err := Open(t.Context(), ref, o); err == nil || !strings.Contains(err.Error(), "linux/s390x") || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("platform that is missing: %v", err)
	}
}

func TestLayoutChoosesByTagAndDigest(t *testing.T) {
	l := newTestLayout(t)
	one, two := l.image(plainLayer(tarOf(t, file("usr/x", "1")))), l.image(plainLayer(tarOf(t, file("usr/x", "22"))))
	one.Annotations = map[string]string{v1.AnnotationRefName: "one"}
	two.Annotations = map[string]string{v1.AnnotationRefName: "two"}
	l.index(one, two)
	for name, size := range map[string]int64{
		":one": 1, ":two": 2, "@" + one.Digest.String(): 1, ":two@" + two.Digest.String(): 2,
	} {
		if n := mustImport(t, Ref{TransportOCI, l.dir + name}).Lookup("usr/x"); n.Size != size {
			t.Errorf("%s gave the image with %d bytes", name, n.Size)
		}
	}
	for name, says := range map[string]string{
		"": "more than one image", ":three": "no image of that tag", ":one@" + two.Digest.String(): "no image of that tag or digest",
	} {
		if _, err := Open(t.Context(), Ref{TransportOCI, l.dir + name}, accept(t)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestParseRef(t *testing.T) {
	for _, s := range []string{
		"oci:/a/b:tag", "oci-archive:x.tar", "rootfs:/", "docker://quay.io/a/b:c", "dir:/x",
		"docker-archive:/x:y:z", "containers-storage:[overlay@/a+/b]name", "containers-storage:localhost/x@sha256:abc",
	} {
		ref, err := ParseRef(s)
		if err != nil || ref.String() != s {
			t.Errorf("%s: %v, %v", s, ref, err)
		}
	}
	for _, s := range []string{"", "oci:", "rootfs", "docker:quay.io/x", "docker://", "rootfs:/a\x00b"} {
		if ref, err := ParseRef(s); err == nil {
			t.Errorf("%q was taken: %v", s, ref)
		}
	}
	for _, s := range []string{"ftp://x", "/a/path", "ostree:/x", ""} {
		_, err := ParseRef(s)
		unknown := (*UnknownTransportError)(nil)
		if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "oci-archive") {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := Open(t.Context(), Ref{"ftp", "x"}, OpenOptions{}); !errors.As(err, new(*UnknownTransportError)) {
		t.Errorf("Open of an unknown transport: %v", err)
	}
}

func TestPolicyIsHonoured(t *testing.T) {
	ref := layoutOf(t, plainLayer(tarOf(t, file("usr/x", "x"))))
	archive := filepath.Join(t.TempDir(), "a.tar")
	skopeo(t, ref.String(), "oci-archive:"+archive+":t")
	plainDir := filepath.Join(t.TempDir(), "dir")
	skopeo(t, ref.String(), "dir:"+plainDir)
	reject := OpenOptions{PolicyPath: filepath.Join(t.TempDir(), "reject.json")}
	must(t, os.WriteFile(reject.PolicyPath, []byte(`{"default":[{"type":"reject"}]}`), 0o644))
	enforce := accept(t)
	enforce.EnforceSigPolicy = true
	missing := OpenOptions{PolicyPath: "/nonexistent/policy.json"}
	for _, r := range []Ref{ref, {TransportOCIArchive, archive}, {TransportDir, plainDir}} {
		for what, o := range map[string]OpenOptions{"reject": reject, "no signature demanded": enforce, "missing file": missing} {
			img, err := Open(t.Context(), r, o)
			if err == nil {
				img.Close()
			}
			if !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), "policy") {
				t.Errorf("%s, %s: %v", r, what, err)
			}
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	nowhere := systemContext(OpenOptions{})
	nowhere.RootForImplicitAbsolutePaths = t.TempDir()
	if policy, err := loadPolicy(nowhere, false); policy != nil || err != nil {
		t.Errorf("a host without a policy file: %v, %v", policy, err)
	}
	if _, err := loadPolicy(nowhere, true); err == nil {
		t.Error("a host without a policy file passed as one that enforces it")
	}
	if _, err := Open(t.Context(), Ref{TransportRootfs, "/usr"}, enforce); !errors.As(err, new(*SourceError)) {
		t.Errorf("a directory passed as signed: %v", err)
	}
}
