package main

import (
	"archive/tar"
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"installer/tests/layout"
)

//go:embed packages.txt
var packageList string

// packageLayers are the packages of each layer, from packages.txt.
func packageLayers() (layers [][]string) {
	for line := range strings.Lines(packageList) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			layers = append(layers, strings.Fields(line))
		}
	}
	return layers
}

// baseLayers are the layers of the bootable image that are taken: the system and its kernel. The one
// above them has a directory in the place of a file, which is too much for ostree checkout --union.
const baseLayers = 2

// once makes the file or directory name by fill, which gets another name that becomes the right one
// when all is done, unless it is there.
func once(name string, fill func(part string) error) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	part := name + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if err := fill(part); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	return os.Rename(part, name)
}

// makeImage makes dir, an OCI layout of the bootable image base and a layer for each line of
// packages.txt. The packages stay in the directory debs.
func makeImage(ctx context.Context, base, dir, debs string) error {
	s, err := layout.Begin(base, dir)
	if err != nil {
		return err
	}
	s.Keep(baseLayers)
	for _, patterns := range packageLayers() {
		files, err := download(ctx, debs, patterns)
		if err != nil {
			return err
		}
		if err := addPackages(ctx, s, files); err != nil {
			return fmt.Errorf("making the layer of %v: %w", patterns, err)
		}
	}
	if err := addRemovals(s); err != nil {
		return err
	}
	return s.Finish(nil)
}

// download returns the .deb files of the packages, from Debian's mirror where they are not in dir.
func download(ctx context.Context, dir string, patterns []string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var files []string
	for _, pattern := range patterns {
		name, err := newest(ctx, pattern)
		if err != nil {
			return nil, err
		}
		file, err := downloadOne(ctx, dir, name)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func downloadOne(ctx context.Context, dir, name string) (string, error) {
	for range 2 {
		found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
		if err != nil || len(found) > 0 {
			return slices.Max(append(found, "")), err
		}
		cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", name)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("downloading package %s: %w\n%s", name, err, out)
		}
	}
	return "", fmt.Errorf("apt-get download left no file of package %s", name)
}

// newest resolves a pattern to the package of the highest name.
func newest(ctx context.Context, pattern string) (string, error) {
	prefix, _, isPattern := strings.Cut(pattern, "*")
	if !isPattern {
		return pattern, nil
	}
	out, err := exec.CommandContext(ctx, "apt-cache", "pkgnames", prefix).Output()
	if err != nil {
		return "", fmt.Errorf("listing packages: %w", err)
	}
	want := regexp.MustCompile("^" + strings.Replace(regexp.QuoteMeta(pattern), `\*`, "[0-9]+", 1) + "$")
	found := slices.DeleteFunc(strings.Fields(string(out)), func(s string) bool { return !want.MatchString(s) })
	if len(found) == 0 {
		return "", fmt.Errorf("no package fits %s: run apt-get update, or mend packages.txt", pattern)
	}
	return slices.MaxFunc(found, func(a, b string) int {
		if len(a) != len(b) { // of two numbers without leading zeros the longer is higher
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	}), nil
}

// addPackages adds one layer with the files of the packages.
func addPackages(ctx context.Context, s *layout.Stack, files []string) error {
	return s.Add(func(w *tar.Writer) error {
		seen := map[string]bool{}
		for _, file := range files {
			if err := copyPackage(ctx, w, file, seen); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
		}
		return nil
	})
}

func copyPackage(ctx context.Context, w *tar.Writer, file string, seen map[string]bool) (err error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_, drained := io.Copy(io.Discard, out)
		err = errors.Join(err, drained, cmd.Wait())
	}()
	r := tar.NewReader(bufio.NewReaderSize(out, 1<<20))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := copyEntry(w, h, r, seen); err != nil {
			return err
		}
	}
}

// copyEntry writes an entry where a system with merged /usr has it. Directories are written once.
func copyEntry(w *tar.Writer, h *tar.Header, content io.Reader, seen map[string]bool) error {
	h.Name = mergedUsr(h.Name)
	if h.Typeflag == tar.TypeLink {
		h.Linkname = mergedUsr(h.Linkname)
	}
	if h.Name == "." || seen[h.Name] {
		return nil
	}
	seen[h.Name] = true
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

func mergedUsr(name string) string {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	switch top, _, _ := strings.Cut(name, "/"); top {
	case "bin", "sbin", "lib", "lib64":
		return "usr/" + name
	}
	return name
}

// addRemovals adds the layer of whiteouts that image builds often end with.
func addRemovals(s *layout.Stack) error {
	return s.Add(func(w *tar.Writer) error {
		for _, name := range []string{"usr/share/doc/.wh..wh..opq", "usr/share/lintian/.wh..wh..opq", "usr/share/.wh.bug"} {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
				return err
			}
		}
		return nil
	})
}
