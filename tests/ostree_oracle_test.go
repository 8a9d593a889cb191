package tests

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A sysroot made by ostree itself is accepted; one with a changed object is not, nor an empty one.
func TestOstreeChecks(t *testing.T) {
	root := ostreeSysroot(t)
	if err := ostreeChecks(t.Context(), root); err != nil {
		t.Fatalf("ostree's own sysroot is refused: %v", err)
	}
	objects, err := filepath.Glob(root + "/ostree/repo/objects/*/*.file")
	if err != nil || len(objects) == 0 {
		t.Fatalf("no objects in the repository (%v)", err)
	}
	i := slices.IndexFunc(objects, func(name string) bool {
		st, err := os.Lstat(name)
		return err == nil && st.Mode().IsRegular() && st.Size() > 0
	})
	must(t, os.WriteFile(objects[i], []byte("spoiled"), 0o644))
	if err := ostreeChecks(t.Context(), root); err == nil || !strings.Contains(err.Error(), "fsck") {
		t.Errorf("a spoiled object was not found: %v", err)
	}
	if err := ostreeChecks(t.Context(), t.TempDir()); err == nil {
		t.Error("an empty directory was taken for a sysroot")
	}
}

func ostreeSysroot(t *testing.T) string {
	t.Helper()
	root, tree := t.TempDir(), t.TempDir()
	modules := tree + "/usr/lib/modules/6.1.0"
	must(t, os.MkdirAll(modules, 0o755))
	must(t, os.MkdirAll(tree+"/usr/etc", 0o755))
	must(t, os.WriteFile(modules+"/vmlinuz", []byte("kernel"), 0o644))
	must(t, os.WriteFile(modules+"/initramfs.img", []byte("initramfs"), 0o644))
	must(t, os.WriteFile(tree+"/usr/etc/os-release", []byte("ID=test\nPRETTY_NAME=Test\n"), 0o644))
	// The deployment's directory is immutable: neither ostree nor this test could remove it.
	t.Cleanup(func() {
		_, err := command(context.Background(), "sh", "-c", `chattr -i "$1"/ostree/deploy/*/deploy/*.0`, "sh", root)
		if err != nil {
			t.Error(err)
		}
	})
	mustCommand(t, "sh", "-euc", `
		ostree admin init-fs --modern "$1"
		ostree admin os-init --sysroot="$1" test
		ostree --repo="$1/ostree/repo" config set sysroot.bootloader none
		ostree --repo="$1/ostree/repo" commit --branch=test --tree=dir="$2"
		ostree admin deploy --sysroot="$1" --os=test test`, "sh", root, tree)
	return root
}
