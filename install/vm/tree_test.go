package vm

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"installer/rootfs/image"
	"installer/tests/chunked"
	"installer/tests/layout"
)

// TestReadTreeOfNative puts the files of an ostree-native image, whose objects have names of their
// own, into the guest's file system.
func TestReadTreeOfNative(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "sh", "-euc", `
		mkdir -p "$1/tree/usr/lib/modules/6" "$1/tree/usr/etc"
		echo kernel > "$1/tree/usr/lib/modules/6/vmlinuz"
		echo module > "$1/tree/usr/lib/modules/6/module.ko"
		ostree init --repo="$1/repo" --mode=bare
		ostree commit --repo="$1/repo" --branch=base --tree=dir="$1/tree"`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	layers, err := chunked.Layers(filepath.Join(dir, "repo"), dir, chunked.Options{Chunks: 2, Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := chunked.Labels(layers)
	if err == nil {
		err = layout.Write(filepath.Join(dir, "oci"), layers, layout.Options{Tag: "latest", Labels: labels})
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "policy.json"), []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	ref := image.Ref{Transport: image.TransportOCI, Name: filepath.Join(dir, "oci") + ":latest"}
	img, err := image.Open(t.Context(), ref, image.OpenOptions{PolicyPath: filepath.Join(dir, "policy.json")})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	guest, err := readTree(t.Context(), img, dir, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.close()
	r, err := guest.open("module.ko")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "module\n" || err != nil || guest.version != "6" {
		t.Errorf("the module of kernel %s has %q, %v", guest.version, got, err)
	}
}
