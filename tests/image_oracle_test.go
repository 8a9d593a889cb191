package tests

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"installer/tests/layout"
)

func TestFlattenOracle(t *testing.T) {
	t.Setenv("INSTALLER_CACHE", t.TempDir())
	base := filepath.Join(t.TempDir(), "base")
	layer := filepath.Join(t.TempDir(), "layer.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, writeFiles(w, "gone", "stays"))
	must(t, w.Close())
	must(t, os.WriteFile(layer, b.Bytes(), 0o600))
	must(t, layout.Write(base, []string{layer}, layout.Options{Tag: "latest"}))
	ref := Variant(t, "oci:"+base+":latest", func(w *tar.Writer) error { return writeFiles(w, ".wh.gone", "new") })
	for range 2 { // the second time from the cache
		root := FlattenOracle(t, ref)
		var names []string
		entries, err := os.ReadDir(root)
		must(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"new", "stays"}) {
			t.Errorf("the flattened image has %q", names)
		}
	}
}

func writeFiles(w *tar.Writer, names ...string) error {
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			return err
		}
	}
	return nil
}

// The image must have the contents that other tests rely on.
func TestCacheImage(t *testing.T) {
	ref := CacheImage(t)
	dir, _ := splitRef(ref)
	config, manifest, _, err := layout.Read(dir)
	must(t, err)
	if len(manifest.Layers) < 3 || config.Config.Labels["containers.bootc"] != "1" || config.Config.Labels["ostree.bootable"] != "1" {
		t.Errorf("%d layers, labels %v", len(manifest.Layers), config.Config.Labels)
	}
	root := FlattenOracle(t, ref)
	for _, pattern := range []string{
		"/usr/lib/modules/*/vmlinuz", "/usr/lib/modules/*/initramfs.img", "/usr/lib/ostree/prepare-root.conf",
		"/usr/libexec/installer-selftest", "/usr/share/installer-image/hard-link",
		"/usr/lib/grub/x86_64-efi/linux.mod", "/usr/lib/grub/i386-pc/boot.img", "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
	} {
		if found, err := filepath.Glob(root + pattern); err != nil || len(found) != 1 {
			t.Errorf("%s: %v (%v), want one", pattern, found, err)
		}
	}
	for pattern, want := range map[string]int{
		"/usr/share/manyfiles/*": 500, "/usr/share/manyfiles/first*": 0, "/usr/share/installer-image/removed*": 0, "/boot/*": 0, "/var/*": 0,
	} {
		if found, err := filepath.Glob(root + pattern); err != nil || len(found) != want {
			t.Errorf("%s: %d found (%v), want %d", pattern, len(found), err, want)
		}
	}
}
