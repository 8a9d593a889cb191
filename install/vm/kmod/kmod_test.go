package kmod

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// indexOf makes an index of texts by file name.
func indexOf(t *testing.T, files map[string]string) *Index {
	t.Helper()
	x, err := ReadIndex(func(name string) (io.Reader, error) {
		text, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return strings.NewReader(text), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestResolve(t *testing.T) {
	x := indexOf(t, map[string]string{
		"modules.dep": `kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/arch/crc32c-intel.ko.xz:
kernel/virtio/virtio_pci.ko: kernel/virtio/virtio_pci_modern_dev.ko kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko
kernel/virtio/virtio_pci_modern_dev.ko:
kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko
kernel/virtio/virtio_ring.ko:
kernel/a.ko:
kernel/b.ko:
`,
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
		"modules.softdep": "# comment\nsoftdep libcrc32c pre: crypto-crc32c not-there post: b\nsoftdep a pre: b\nsoftdep b pre: a\n",
		"modules.alias":   "alias crypto-crc32c crc32c_intel\nalias pci:v*d* a\n",
	})
	for _, c := range []struct {
		names, want []string
	}{
		{[]string{"xfs"}, []string{"kernel/arch/crc32c-intel.ko.xz", "kernel/lib/libcrc32c.ko.xz", "kernel/fs/xfs/xfs.ko.xz"}},
		{[]string{"ext4"}, nil},
		{[]string{"virtio-pci", "virtio"}, []string{
			"kernel/virtio/virtio_ring.ko", "kernel/virtio/virtio.ko",
			"kernel/virtio/virtio_pci_modern_dev.ko", "kernel/virtio/virtio_pci.ko"}},
		{[]string{"a"}, []string{"kernel/b.ko", "kernel/a.ko"}},
	} {
		got, err := x.Resolve(c.names, []string{"nowhere"})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Resolve(%v) = %v, %v; want %v", c.names, got, err, c.want)
		}
	}
	var missing *MissingError
	if _, err := x.Resolve([]string{"ext4", "erofs"}, nil); !errors.As(err, &missing) || missing.Module != "erofs" {
		t.Errorf("a module that is not there: %v", err)
	}
}

func TestIndexWithoutDependenciesIsRefused(t *testing.T) {
	_, err := ReadIndex(func(string) (io.Reader, error) { return nil, fs.ErrNotExist })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestLoadUnpacks(t *testing.T) {
	plain := bytes.Repeat([]byte("module "), 5000)
	path := filepath.Join(t.TempDir(), "m.ko")
	if err := os.WriteFile(path, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, packed := range map[string][]byte{
		"": plain, ".zst": encoder.EncodeAll(plain, nil),
		".xz": output(t, "xz", "-c", "--check=crc32", path), ".gz": output(t, "gzip", "-c", path),
	} {
		got, err := Load("m.ko"+suffix, bytes.NewReader(packed))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q: %d bytes, %v", suffix, len(got), err)
		}
		if suffix == "" {
			continue
		}
		if _, err := Load("m.ko"+suffix, bytes.NewReader(packed[:len(packed)/2])); err == nil {
			t.Errorf("%q: a truncated module was taken", suffix)
		}
	}
}

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}
