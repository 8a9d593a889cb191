package tests

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"installer/tests/layout"
	"installer/tests/sample"
)

// tinySize is the size of the raw disk files that the small image goes on, in bytes: xfs wants 300
// MiB for the root.
const tinySize = 1 << 30

var tiny struct {
	sync.Mutex
	ref string
}

// TinyImage is an image of a few files that is shaped like a system, made once a run: an image that
// cannot boot may be installed with --bootloader none. One directory is large enough for its object
// to be mapped.
func TinyImage(t testing.TB) string {
	t.Helper()
	tiny.Lock()
	defer tiny.Unlock()
	if tiny.ref != "" {
		return tiny.ref
	}
	dir := filepath.Join(runDir, "tiny")
	tarFile := dir + ".tar"
	b, err := tinyTar("amd64")
	if err == nil {
		err = os.WriteFile(tarFile, b, 0o600)
	}
	if err == nil {
		err = layout.Write(dir, []string{tarFile}, layout.Options{Tag: "latest", Labels: map[string]string{"containers.bootc": "1"}})
	}
	if err != nil {
		t.Fatalf("making a small image: %v", err)
	}
	tiny.ref = "oci:" + dir + ":latest"
	return tiny.ref
}

// tinyTar returns the one layer of a small image for an architecture.
func tinyTar(arch string) ([]byte, error) {
	files := map[string]string{
		"usr/lib/os-release":                    "ID=tiny\nPRETTY_NAME=Tiny\n",
		"usr/lib/modules/6.1.0/modules.builtin": "",
		"etc/tiny.conf":                         "tiny\n",
		"etc/passwd":                            "root:x:0:0::/root:/bin/sh\n",
	}
	for name, data := range sample.Files(arch, "6.1.0", nil) {
		files[name] = string(data)
	}
	for i := range 600 {
		files[fmt.Sprintf("usr/share/many/a-file-with-a-rather-long-name-%03d", i)] = "content"
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "usr", "usr/lib",
		"usr/bin", "usr/lib/modules", "usr/lib/modules/6.1.0", "usr/share", "usr/share/many", "var"} {
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, mode := files[name], int64(0o644)
		if sample.Executable(name) {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(content)); err != nil {
			return nil, err
		}
	}
	for link, target := range map[string]string{"ostree": "sysroot/ostree", "bin": "usr/bin"} {
		if err := w.WriteHeader(&tar.Header{Name: link, Typeflag: tar.TypeSymlink, Linkname: target}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}
