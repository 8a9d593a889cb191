package image

import (
	"slices"
	"testing"
)

func TestPaths(t *testing.T) {
	for ref, want := range map[string][]string{
		"oci:/a/b:tag": {"/a/b"}, "oci:rel@sha256:" + hex64: {"rel"}, "oci-archive:x.tar:t": {"x.tar"}, "docker-archive:x.tar": {"x.tar"},
		"dir:/a:b": {"/a:b"}, "rootfs:/tree": {"/tree"}, "docker://quay.io/x": nil,
		"containers-storage:[overlay@/root+/run]name": {"/root", "/run"},
	} {
		r, err := ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Paths(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", ref, got, err, want)
		}
	}
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
