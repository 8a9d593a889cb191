package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"installer/tests/layout"
	"installer/tests/sample"
)

func allocated(name string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(name, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// fatInitramfs is more than an EFI system partition of 512 MiB holds, in bytes.
const fatInitramfs = 520 << 20

// makeImages makes small images that are shaped like a system, and returns their references by name.
func makeImages(dir string) (map[string]string, error) {
	efi := map[string][]byte{"usr/lib/systemd/boot/efi/systemd-bootx64.efi": efiProgram()}
	grub, err := grubFiles()
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for _, image := range []struct {
		name   string
		layers []map[string][]byte
	}{
		{"small", []map[string][]byte{system("initramfs"), content(300, 8<<10), efi}},
		{"grub", []map[string][]byte{system("initramfs"), content(100, 4<<10), grub}},
		{"many", []map[string][]byte{system("initramfs"), content(24000, 0), efi}},
		{"fat", []map[string][]byte{system(string(make([]byte, fatInitramfs))), efi}},
	} {
		if refs[image.name], err = makeImage(filepath.Join(dir, image.name), image.layers); err != nil {
			return nil, fmt.Errorf("making the image %q: %w", image.name, err)
		}
	}
	// One that has to be unpacked to be read: a compressed archive.
	archive := filepath.Join(dir, "archive.tar")
	for _, argv := range [][]string{
		{"skopeo", "copy", "--quiet", refs["small"], "docker-archive:" + archive + ":small:latest"},
		{"gzip", "-1", archive},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("packing an image: %w: %s", err, out)
		}
	}
	refs["archive"] = "docker-archive:" + archive + ".gz"
	return refs, nil
}

func makeImage(dir string, layers []map[string][]byte) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	var tars []string
	for i, files := range layers {
		name := fmt.Sprintf("%s.%d.tar", dir, i)
		if err := writeTar(name, files, i == 0); err != nil {
			return "", err
		}
		defer os.Remove(name)
		tars = append(tars, name)
	}
	o := layout.Options{Tag: "latest", Labels: map[string]string{"containers.bootc": "1"}}
	return "oci:" + dir + ":latest", layout.Write(dir, tars, o)
}

// system lists the files that every bootable image has.
func system(initramfs string) map[string][]byte {
	files := sample.Files("amd64", "6.1.0", []byte(initramfs))
	maps.Copy(files, map[string][]byte{
		"usr/lib/os-release":                    []byte("ID=small\nPRETTY_NAME=Small\n"),
		"usr/lib/modules/6.1.0/modules.builtin": nil,
		"etc/small.conf":                        []byte("small\n"),
		"etc/passwd":                            []byte("root:x:0:0:root:/root:/bin/sh\n"),
	})
	return files
}

// content is n files of about size bytes that do not compress; a size of 0 makes them all different
// and tiny.
func content(n, size int) map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{}
	for i := range n {
		b := fmt.Appendf(nil, "%d", i)
		for range size / 8 {
			b = binary.LittleEndian.AppendUint64(b, random.Uint64())
		}
		files[fmt.Sprintf("usr/share/content/directory-%02d/a-file-with-a-rather-long-name-%05d", i%40, i)] = b
	}
	return files
}

// efiProgram is the least that is an EFI application for amd64: headers of the PE format without a
// section.
func efiProgram() []byte {
	b := make([]byte, 1024)
	copy(b, "MZ")
	b[0x3c] = 0x40
	copy(b[0x40:], "PE\x00\x00")
	h := b[0x44:]
	binary.LittleEndian.PutUint16(h, 0x8664)
	binary.LittleEndian.PutUint16(h[16:], 240) // optional header
	binary.LittleEndian.PutUint16(h[18:], 0x22)
	o := h[20:]
	binary.LittleEndian.PutUint16(o, 0x20b)
	binary.LittleEndian.PutUint16(o[68:], 10)
	binary.LittleEndian.PutUint32(o[108:], 16)
	return b
}

// grubFiles are this machine's GRUB: its image maker with the libraries that it needs, and its
// modules.
func grubFiles() (map[string][]byte, error) {
	const tool = "/usr/bin/grub-mkimage"
	out, err := exec.Command("ldd", tool).Output()
	if err != nil {
		return nil, fmt.Errorf("finding the libraries of %s (package grub-common): %w", tool, err)
	}
	names := []string{tool}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			names = append(names, field)
		}
	}
	for _, dir := range []string{"/usr/lib/grub/x86_64-efi", "/usr/lib/grub/i386-pc"} {
		found, err := filepath.Glob(dir + "/*")
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	files := map[string][]byte{}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		at := strings.TrimPrefix(name, "/")
		if strings.HasPrefix(at, "lib") {
			at = "usr/" + at // the images have merged directories
		}
		if files[at], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// writeTar writes a layer. The base has the directories and links of a bootable system's root.
func writeTar(name string, files map[string][]byte, base bool) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	dirs := map[string]bool{}
	if base {
		for _, dir := range []string{"boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "usr", "usr/lib", "usr/lib64", "usr/bin", "var"} {
			dirs[dir] = true
		}
		for link, target := range map[string]string{"ostree": "sysroot/ostree", "lib": "usr/lib", "lib64": "usr/lib64", "bin": "usr/bin"} {
			if err := w.WriteHeader(&tar.Header{Name: link, Typeflag: tar.TypeSymlink, Linkname: target}); err != nil {
				return err
			}
		}
	}
	for name := range files {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			return err
		}
		if _, err := io.Copy(w, bytes.NewReader(files[name])); err != nil {
			return err
		}
	}
	return w.Close()
}
