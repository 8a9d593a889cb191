// Package chunked makes the layers of an ostree-native image out of a repository, for tests.
//
// It is an account of the format that is independent of the installer's: it reads the files of a
// repository in bare mode as they are, and serialises extended attributes itself.
package chunked

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options says how a repository becomes layers.
type Options struct {
	Chunks  int // layers after the first; 0 puts the files into the first
	Version int // of the streams: 0 or 1
	// Edit changes the entries of a layer, as a damaged image has them. Layer 0 is the commit's.
	Edit func(layer int, entries []Entry) []Entry
}

// Entry is an entry of a layer.
type Entry struct {
	tar.Header
	Content []byte
}

const prefix = "sysroot/ostree/repo/"

// object is a file of the repository.
type object struct {
	path      string // on this machine
	sum, kind string
}

func (o object) name(kind string) string {
	return prefix + "objects/" + o.sum[:2] + "/" + o.sum[2:] + "." + kind
}

// Layers writes the layers of the only commit of the repository into dir, and returns their names.
// The last one is that which the label ostree.final-diffid names.
func Layers(repo, dir string, o Options) ([]string, error) {
	meta, files, err := objects(repo)
	if err != nil {
		return nil, err
	}
	layers := make([][]Entry, 1+o.Chunks)
	for i := range layers {
		layers[i] = furniture()
	}
	for _, m := range meta {
		content, err := os.ReadFile(m.path)
		if err != nil {
			return nil, err
		}
		layers[0] = append(layers[0], regular(m.name(m.kind), content))
	}
	lists := make([]map[string]int, len(layers)) // attributes of each layer, and the links to them
	for n, f := range files {
		at := 0
		if o.Chunks > 0 {
			at = 1 + n%o.Chunks
		}
		if lists[at] == nil {
			lists[at] = map[string]int{}
		}
		entries, err := file(f, lists[at], o.Version)
		if err != nil {
			return nil, err
		}
		layers[at] = append(layers[at], entries...)
	}
	var names []string
	for i, entries := range layers {
		if o.Edit != nil {
			entries = o.Edit(i, entries)
		}
		name := filepath.Join(dir, fmt.Sprintf("chunk-%02d.tar", i))
		if err := write(name, entries); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// objects lists a repository: the metadata objects with the commit first and the metadata beside it
// second, and the files.
func objects(repo string) (meta, files []object, err error) {
	paths, err := filepath.Glob(filepath.Join(repo, "objects/??/*"))
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		stem, kind, _ := strings.Cut(filepath.Base(path), ".")
		o := object{path, filepath.Base(filepath.Dir(path)) + stem, kind}
		if kind == "file" {
			files = append(files, o)
		} else {
			meta = append(meta, o)
		}
	}
	order := []string{"commit", "commitmeta", "dirtree", "dirmeta"}
	slices.SortStableFunc(meta, func(a, b object) int { return slices.Index(order, a.kind) - slices.Index(order, b.kind) })
	if len(meta) < 3 || meta[0].kind != "commit" || meta[1].kind == "commit" {
		return nil, nil, errors.New("the repository has not one commit")
	}
	return meta, files, nil
}

// furniture is the part of each layer by which container engines take it for a repository.
func furniture() []Entry {
	var entries []Entry
	for _, name := range []string{"sysroot", "sysroot/ostree", "sysroot/ostree/repo", prefix + "objects", prefix + "refs", prefix + "tmp"} {
		entries = append(entries, Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}})
	}
	return append(entries, regular(prefix+"config", []byte("[core]\nrepo_version=1\nmode=bare-split-xattrs\n")))
}

func regular(name string, content []byte) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func hardLink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// copied is how many links to a list of attributes a layer has before it has a copy in the place of
// the next: a file system bounds links.
const copied = 3

// file returns the entries of a file object: its attributes where the layer has not the same, a
// link to them, itself, and the name under which engines see it.
func file(o object, lists map[string]int, version int) ([]Entry, error) {
	list, err := attributes(o.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(list)
	x := hex.EncodeToString(sum[:])
	shared, link := object{sum: x}.name("file-xattrs"), "file-xattrs-link"
	if version == 0 {
		shared, link = prefix+"xattrs/"+x, "file.xattrs"
	}
	var entries []Entry
	lists[x]++
	switch {
	case lists[x] == 1:
		entries = append(entries, regular(shared, list), hardLink(o.name(link), shared))
	case version == 1 && lists[x]%copied == 0:
		entries = append(entries, regular(o.name(link), list))
	case version == 0:
		entries = append(entries, hardLink(o.name(link), "../../xattrs/"+x))
	default:
		entries = append(entries, hardLink(o.name(link), shared))
	}
	e, err := content(o)
	return append(entries, e, hardLink("usr/"+o.sum, o.name("file"))), err
}

func content(o object) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(o.path, &st); err != nil {
		return Entry{}, &os.PathError{Op: "lstat", Path: o.path, Err: err}
	}
	e := Entry{Header: tar.Header{Name: o.name("file"), Uid: int(st.Uid), Gid: int(st.Gid), Mode: int64(st.Mode & 0o7777)}}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		e.Typeflag = tar.TypeSymlink
		e.Linkname, err = os.Readlink(o.path)
		return e, err
	}
	e.Typeflag = tar.TypeReg
	e.Content, err = os.ReadFile(o.path)
	e.Size = int64(len(e.Content))
	return e, err
}

// attributes serialises the extended attributes of a file as a GVariant a(ayay), in byte order.
func attributes(path string) ([]byte, error) {
	buffer := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buffer)
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	names := strings.Split(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var b []byte
	var ends []int
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buffer)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		pair := append(append([]byte(name), 0), buffer[:n]...)
		b = append(b, offsets(pair, len(name)+1)...)
		ends = append(ends, len(b))
	}
	return offsets(b, ends...), nil
}

// offsets appends the ends of a container's children, in the smallest size that holds the whole.
func offsets(b []byte, ends ...int) []byte {
	size := 1
	for len(b)+size*len(ends) >= 1<<(8*size) {
		size *= 2
	}
	for _, end := range ends {
		for i := range size {
			b = append(b, byte(end>>(8*i)))
		}
	}
	return b
}

func write(name string, entries []Entry) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if err := w.WriteHeader(&h); err != nil {
			return fmt.Errorf("writing %s: %w", h.Name, err)
		}
		if _, err := io.Copy(w, bytes.NewReader(e.Content)); err != nil {
			return fmt.Errorf("writing %s: %w", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// Labels returns the labels of an image whose lower layers these are.
func Labels(layers []string) (map[string]string, error) {
	last, err := os.ReadFile(layers[len(layers)-1])
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(last)
	return map[string]string{"containers.bootc": "1", "ostree.final-diffid": "sha256:" + hex.EncodeToString(sum[:])}, nil
}
