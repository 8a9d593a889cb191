package deploy

import (
	"slices"
	"strings"
	"testing"
)

func TestEscapeRef(t *testing.T) {
	for name, want := range map[string]string{
		"sha256:abc":                  "sha256_3A_abc",
		"docker://quay.io/x/y:latest": "docker_3A__2F__2F_quay_2E_io/x/y_3A_latest",
		"localhost:5000/foo:latest":   "localhost_3A_5000/foo_3A_latest",
		"a_b":                         "a__b",
		"oci:/tmp/x":                  "oci_3A__2F_tmp/x",
		"a/":                          "a_2F_",
		"é":                           "_E9_",
	} {
		if got, err := escapeRef(name); err != nil || got != want {
			t.Errorf("escapeRef(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	for _, bad := range []string{"", "a\x00b", "\xff"} {
		if got, err := escapeRef(bad); err == nil {
			t.Errorf("escapeRef(%q) = %q", bad, got)
		}
	}
}

func TestCheckStateroot(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "fedora-coreos": true, "a_1.x": true, "": false, ".": false, "..": false, "a/b": false,
		"-x": false, "a b": false, "a\n": false, strings.Repeat("x", 200): false,
	} {
		if err := CheckStateroot(name); (err == nil) != ok {
			t.Errorf("stateroot %q: %v", name, err)
		}
	}
}

func TestEntryArguments(t *testing.T) {
	for given, want := range map[string]string{
		"root=x rw":                  "root=x rw ostree=/o",
		"root=x ostree=/old rw":      "root=x ostree=/o rw",
		"ostree=/a quiet ostree=/b":  "ostree=/o quiet",
		"ostree.prepare-root.x=1 rw": "ostree.prepare-root.x=1 rw ostree=/o",
	} {
		kargs := strings.Fields(given)
		e := bootEntry{kargs: kargs, ostree: "/o"}
		if got := strings.Join(e.arguments(), " "); got != want {
			t.Errorf("arguments %q became %q, want %q", given, got, want)
		}
		if strings.Join(kargs, " ") != given {
			t.Errorf("the caller's arguments became %q", kargs)
		}
	}
}

func TestCheckKarg(t *testing.T) {
	for arg, ok := range map[string]bool{
		"rw": true, `a="b c"`: true, "a=b=c": true, "": false, "a b": false, "a\nb": false, `a="b`: false, "a\tb": false,
	} {
		if err := CheckKarg(arg); (err == nil) != ok {
			t.Errorf("kernel argument %q: %v", arg, err)
		}
	}
}

func TestEntryWithoutInitramfs(t *testing.T) {
	e := bootEntry{title: "Lab", version: "1", ostree: "/o", initProgram: "/o/i", at: "/boot/ostree/x", kernel: KernelInfo{VmlinuzPath: "vmlinuz-6"}}
	const want = "title Lab 1 (ostree:0)\nversion 1\noptions ostree=/o init=/o/i\nlinux /boot/ostree/x/vmlinuz-6\n"
	if got := e.text(); got != want {
		t.Errorf("the entry is\n%s", got)
	}
	e.title = "Lab 1 beta"
	if got := e.text(); !strings.HasPrefix(got, "title Lab 1 beta (ostree:0)\n") {
		t.Errorf("a version that the title has already is repeated:\n%s", got)
	}
}

func TestOriginReference(t *testing.T) {
	for reference, want := range map[string]string{
		"docker://quay.io/x:1":   "ostree-unverified-registry:quay.io/x:1",
		"oci-archive:/tmp/x.tar": "ostree-unverified-image:oci-archive:/tmp/x.tar",
	} {
		if got := OriginReference(reference, false); got != want {
			t.Errorf("OriginReference(%q) = %q, want %q", reference, got, want)
		}
	}
	if got, want := OriginReference("docker://quay.io/x:1", true), "ostree-image-signed:docker://quay.io/x:1"; got != want {
		t.Errorf("OriginReference of a signed image = %q, want %q", got, want)
	}
}

func TestNextSerial(t *testing.T) {
	commit := [32]byte{1}
	x, dep := "01"+strings.Repeat("00", 31), []string{}
	for _, suffix := range []string{"", ".0", ".0.origin", ".3", ".x"} {
		dep = append(dep, x+suffix)
	}
	slices.Sort(dep)
	if got := nextSerial(dep, commit); got != 4 {
		t.Errorf("the next serial is %d, want 4", got)
	}
	if got := nextSerial(nil, commit); got != 0 {
		t.Errorf("the first serial is %d, want 0", got)
	}
}
