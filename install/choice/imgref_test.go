package choice

import (
	"strings"
	"testing"

	"installer/rootfs/image"
)

func TestTargetOf(t *testing.T) {
	const digest = "@sha256:bfbe66b172901bb3b7f03c733312030efe4e8b8db72f517289890d9e276fc044"
	for _, c := range []struct{ target, transport, source, want string }{
		{"quay.io/a/b:c", "", "oci:/x", "docker://quay.io/a/b:c"},
		{"oci:/srv/os:latest", "", "oci:/x", "oci:/srv/os:latest"},
		{"quay.io/a/b:c", "registry", "oci:/x", "docker://quay.io/a/b:c"},
		{"/srv/os:latest", "oci", "docker://quay.io/a/b", "oci:/srv/os:latest"},
		{"localhost/a", "containers-storage", "oci:/x", "containers-storage:localhost/a"},
		{"", "registry", "containers-storage:quay.io/a/b:c", "docker://quay.io/a/b:c"},
		{"", "", "containers-storage:[overlay@/a+/b]quay.io/a/b:c", "docker://quay.io/a/b:c"},
		{"", "", "containers-storage:quay.io/a/b:c" + digest, "docker://quay.io/a/b:c"},
		{"", "", "docker://quay.io/a/b:c" + digest, "docker://quay.io/a/b:c" + digest}, // pinned on purpose
		{"", "", "oci:/x:tag", "oci:/x:tag"},
		{"", "", "rootfs:/x", ""},
	} {
		got, err := TargetOf(parse(t, c.source), c.target, c.transport)
		if got != c.want || err != nil {
			t.Errorf("%+v gave %q (%v)", c, got, err)
		}
	}
	for _, c := range [][3]string{
		{"rootfs:/x", "quay.io/a", "ostree"}, {"rootfs:/x", "quay.io/a", "rootfs"}, {"rootfs:/x", "", "oci"},
		{"rootfs:/x", "rootfs:/x", ""}, {"oci:/x", "oci:", ""}, {"containers-storage:@" + digest[8:], "", ""},
		{"containers-storage:" + digest[8:], "", ""},
		{"oci:/x", "Quay.io/FOO bar", ""}, {"oci:/x", "quay.io/FOO", ""}, {"oci:/x", "docker://quay.io/a b", ""},
		{"oci:/x", "quay.io/a:b:c", "registry"}, {"oci:/x", "quay.io/a@sha256:12", ""}, {"oci:/x", "quay.io/a/", ""},
		{"oci:/x", "oci:/a\tb", ""}, {"oci:/x", "oci:/a\nb", ""}, {"oci:/x", "oci:/a ", ""}, {"oci:/x", "oci:/\xff", ""},
		{"oci:/x", "oci:/" + strings.Repeat("a", 256), ""}, {"oci:/x", "oci:" + strings.Repeat("/a:", 80), ""},
	} {
		if got, err := TargetOf(parse(t, c[0]), c[1], c[2]); err == nil {
			t.Errorf("%q was taken as %s", c, got)
		}
	}
}

func parse(t *testing.T, s string) image.Ref {
	t.Helper()
	ref, err := image.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// An update source that the host cannot reach is noted, with the reason.
func TestUnreachable(t *testing.T) {
	for _, c := range []struct{ target, source, want string }{
		{"docker://quay.io/a:b", "oci:/x", ""},
		{"oci:oci:latest", "oci:oci:latest", "relative"},
		{"oci:./oci", "oci:/x", "relative"},
		{"dir:d", "oci:/x", "relative"},
		{"docker-archive:a.tar", "oci:/x", "relative"},
		{"oci-archive:/run/a.tar", "oci-archive:/run/a.tar", "machine that installs"},
		{"oci:/srv/images/os:latest", "oci:/x", ""}, // named on purpose
		{"docker://localhost/os:latest", "containers-storage:localhost/os:latest", "installed host itself"},
		{"docker://localhost:5000/os", "oci:/x", "installed host itself"},
		{"docker://127.0.0.1:5000/os", "oci:/x", "installed host itself"},
		{"docker://[::1]:5000/os", "oci:/x", "installed host itself"},
		{"docker://localhost.example.com/os", "oci:/x", ""},
		{"containers-storage:localhost/a", "oci:/x", ""},
	} {
		if got := unreachable(c.target, parse(t, c.source)); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
