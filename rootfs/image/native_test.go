package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"installer/rootfs/ostree"
	"installer/tests/chunked"
)

// objectSink names contents as an OSTree repository does.
type objectSink struct {
	mu     sync.Mutex
	stored map[ContentID]int
}

func (s *objectSink) Store(_ context.Context, m Meta, target string, _ int64, content io.Reader) (ContentID, error) {
	h, err := ostree.FileHeader{UID: m.UID, GID: m.GID, Mode: m.Mode, Xattrs: m.Xattrs, Target: target}.Hash()
	if err == nil && content != nil {
		_, err = io.Copy(h, content)
	}
	if err != nil {
		return ContentID{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ContentID(h.Sum(nil))
	if s.stored == nil {
		s.stored = map[ContentID]int{}
	}
	s.stored[id]++
	return id, nil
}

// smallCommit makes a repository with a commit of a few files.
func smallCommit(t *testing.T) string {
	t.Helper()
	root, repo := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		"usr/lib/os-release": "ID=lab\n", "usr/lib/modules/6/vmlinuz": "kernel", "usr/bin/a": "a", "usr/bin/b": "b",
		"usr/etc/hostname": "", "usr/etc/conf": "conf", "usr/share/large": strings.Repeat("large ", 100_000),
		"usr/share/medium": strings.Repeat("medium ", 2000),
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
	}
	must(t, os.Symlink("a", filepath.Join(root, "usr/bin/link")))
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	run(t, "ostree", "init", "--repo="+repo, "--mode=bare")
	run(t, "ostree", "commit", "--repo="+repo, "--branch=base", "--add-detached-metadata-string=signature=x", "--tree=dir="+root)
	return repo
}

// nativeRef makes an image of the lower layers of a repository, and of others over them.
func nativeRef(t *testing.T, repo string, o chunked.Options, pack func(plain []byte) blobLayer, derived ...blobLayer) (Ref, []blobLayer) {
	t.Helper()
	names, err := chunked.Layers(repo, t.TempDir(), o)
	must(t, err)
	l := newTestLayout(t)
	l.labels, err = chunked.Labels(names)
	must(t, err)
	var layers []blobLayer
	for _, name := range names {
		plain, err := os.ReadFile(name)
		must(t, err)
		layers = append(layers, pack(plain))
	}
	layers = append(layers, derived...)
	return l.tag("latest", l.image(layers...)), layers
}

func scanNative(t *testing.T, ref Ref, o ScanOptions) (*Image, *Inventory, error) {
	t.Helper()
	img, err := Open(t.Context(), ref, accept(t))
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { must(t, img.Close()) })
	inv, err := img.Scan(t.Context(), o)
	return img, inv, err
}

// A scan keeps and looks at files of the commit by the names that they have in it, whether or not
// layers are compressed, and the import stores each object once.
func TestNativeScan(t *testing.T) {
	repo := smallCommit(t)
	packs := map[string]func([]byte) blobLayer{
		"compressed": func(plain []byte) blobLayer { return gzipLayer(t, plain) }, "plain": plainLayer,
	}
	for name, pack := range packs {
		for _, chunks := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s in %d chunks", name, chunks), func(t *testing.T) {
				over := gzipLayer(t, tarOf(t, file("etc/over", "over"), file("usr/bin/.wh.b", "").mode(0o600)))
				ref, _ := nativeRef(t, repo, chunked.Options{Chunks: chunks, Version: 1}, pack, over)
				var looked sync.Map
				img, inv, err := scanNative(t, ref, ScanOptions{
					Files: []string{"usr/lib/os-release", "usr/etc"},
					Look: func(name string, _ uint32) func(io.Reader) (any, error) {
						looked.Store(name, true)
						if name != "usr/lib/modules/6/vmlinuz" {
							return nil
						}
						return func(r io.Reader) (any, error) { return io.ReadAll(r) }
					},
				})
				must(t, err)
				checkKept(t, inv)
				if seen, _ := inv.Seen("usr/lib/modules/6/vmlinuz").([]byte); string(seen) != "kernel" {
					t.Errorf("the kernel was looked at as %q", seen)
				}
				if img.BaseLayers != chunks+1 || inv.Tree.Base.Layers != chunks+1 || len(inv.Tree.Base.Detached) != 1 {
					t.Errorf("%d base layers, %+v", img.BaseLayers, inv.Tree.Base)
				}
				sink := &objectSink{}
				tree, err := img.Import(t.Context(), sink, ImportOptions{})
				must(t, err)
				direct, err := importNative(t, ref)
				must(t, err)
				sameLines(t, "without a scan", describe(direct.Root), describe(tree.Root))
				byPlace, err := importAs(t, ref, &placeSink{}, ImportOptions{OwnNames: true})
				must(t, err)
				if a, b := byPlace.Lookup("usr/bin/a").Content, byPlace.Lookup("usr/share/large").Content; a == b || a[31] != 0 || b[31] != 0 {
					t.Errorf("the sink's own names are %s and %s", a, b)
				}
				for id, times := range sink.stored {
					if times != 1 {
						t.Errorf("%s was stored %d times", id, times)
					}
				}
			})
		}
	}
}

func checkKept(t *testing.T, inv *Inventory) {
	t.Helper()
	for name, want := range map[string]string{"etc/os-release": "", "usr/lib/os-release": "ID=lab\n", "etc/conf": "conf", "etc/over": "over"} {
		got, err := inv.FS().ReadFile(name)
		if missing := want == ""; missing != (err != nil) || string(got) != want {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
	if inv.Tree.Lookup("usr/bin/b") != nil || inv.Tree.Lookup("usr/etc/hostname") != nil || inv.Tree.Lookup("usr/bin/a") == nil {
		t.Error("a whiteout, or the removal of stubs, has another effect")
	}
}

// Without a root that shows them, files of derived layers outside of /usr, /etc and /var are neither
// stored nor counted; one that has another name in its layer is.
func TestNativeLeavesOut(t *testing.T) {
	repo := smallCommit(t)
	over := plainLayer(tarOf(t,
		dir("opt", 0o755), file("opt/tool", "left out"), symlink("srv", "var/srv"), file("root", "left out, too"),
		file("opt/shared", "shared"), hardlink("usr/bin/shared", "opt/shared"), file("var/kept", "kept"), file("etc/kept", "kept, too"),
	))
	for name, pack := range map[string]func([]byte) blobLayer{"compressed": func(plain []byte) blobLayer { return gzipLayer(t, plain) }, "plain": plainLayer} {
		counts, stored := map[bool]int64{}, map[bool]*objectSink{}
		for _, with := range []bool{false, true} {
			var layers []blobLayer
			if with {
				layers = append(layers, pack(over.blob))
			}
			ref, _ := nativeRef(t, repo, chunked.Options{Chunks: 1, Version: 1}, pack, layers...)
			img, inv, err := scanNative(t, ref, ScanOptions{})
			must(t, err)
			counts[with], stored[with] = inv.Objects, &objectSink{}
			tree, err := img.Import(t.Context(), stored[with], ImportOptions{})
			must(t, err)
			if with && (tree.Lookup("opt") != nil || tree.Lookup("srv") != nil || tree.Lookup("usr/bin/shared") == nil ||
				tree.Dropped["opt"] != 1 || tree.Layers[2].Lookup("root") != nil) {
				t.Errorf("%s: dropped %v, the tree has\n%s", name, tree.Dropped, describe(tree.Root))
			}
		}
		if counts[true] != counts[false]+3 || len(stored[true].stored) != len(stored[false].stored)+3 {
			t.Errorf("%s: counted %v, stored %d and %d", name, counts, len(stored[false].stored), len(stored[true].stored))
		}
	}
}

func importNative(t *testing.T, ref Ref) (*Tree, error) {
	t.Helper()
	return importAs(t, ref, &objectSink{}, ImportOptions{})
}

// placeSink names contents by the order in which they come.
type placeSink struct{ next atomic.Uint32 }

func (s *placeSink) Store(_ context.Context, _ Meta, _ string, _ int64, content io.Reader) (ContentID, error) {
	if content != nil {
		if _, err := io.Copy(io.Discard, content); err != nil {
			return ContentID{}, err
		}
	}
	n := s.next.Add(1)
	return ContentID{byte(n), byte(n >> 8)}, nil
}

func importAs(t *testing.T, ref Ref, sink Sink, o ImportOptions) (*Tree, error) {
	t.Helper()
	img, err := Open(t.Context(), ref, accept(t))
	if err != nil {
		return nil, err
	}
	defer func() { must(t, img.Close()) }()
	return img.Import(t.Context(), sink, o)
}

// ofKind returns the index of the first entry of a kind.
func ofKind(entries []chunked.Entry, suffix string) int {
	return slices.IndexFunc(entries, func(e chunked.Entry) bool { return strings.HasSuffix(e.Name, suffix) })
}

// nativeFault is a change of one layer, and the entry that the error names.
type nativeFault struct {
	layer int
	edit  func(e []chunked.Entry) ([]chunked.Entry, string)
	says  string
}

// change applies fn to the first entry of a kind.
func change(suffix string, fn func(e *chunked.Entry)) func([]chunked.Entry) ([]chunked.Entry, string) {
	return func(all []chunked.Entry) ([]chunked.Entry, string) {
		e := &all[ofKind(all, suffix)]
		e.Content = bytes.Clone(e.Content)
		fn(e)
		e.Size = int64(len(e.Content))
		return all, e.Name
	}
}

// drop removes the first entry of a kind.
func drop(suffix string) func([]chunked.Entry) ([]chunked.Entry, string) {
	return func(all []chunked.Entry) ([]chunked.Entry, string) {
		at := ofKind(all, suffix)
		name := all[at].Name
		return slices.Delete(all, at, at+1), name
	}
}

// instead has the error name the first entry of a kind that is left.
func instead(edit func([]chunked.Entry) ([]chunked.Entry, string), suffix string) func([]chunked.Entry) ([]chunked.Entry, string) {
	return func(all []chunked.Entry) ([]chunked.Entry, string) {
		all, _ = edit(all)
		return all, all[ofKind(all, suffix)].Name
	}
}

// dangling removes the file object after the first link of a kind; the error names the next one.
func dangling(suffix string) func([]chunked.Entry) ([]chunked.Entry, string) {
	return func(all []chunked.Entry) ([]chunked.Entry, string) {
		at := ofKind(all, suffix)
		all = slices.Delete(all, at+1, at+2)
		return all, all[at+1+ofKind(all[at+1:], suffix)].Name
	}
}

// put adds an object to the end of a layer.
func put(name, content string) func([]chunked.Entry) ([]chunked.Entry, string) {
	return func(all []chunked.Entry) ([]chunked.Entry, string) {
		name := repoPrefix + name
		return append(all, chunked.Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content))}, Content: []byte(content)}), name
	}
}

func objectName(kind objectKind, first byte) string { return objectPath(kind, ContentID{first}) }

var nativeFaults = map[string]nativeFault{
	"a directory's list is missing":     {0, drop(".dirtree"), "the object is missing: the commit"},
	"a directory's metadata is missing": {0, drop(".dirmeta"), "the object is missing: the commit"},
	"another list":                      {0, change(".dirtree", func(e *chunked.Entry) { e.Content[0] ^= 1 }), "the object has the checksum"},
	"another commit":                    {0, change(".commit", func(e *chunked.Entry) { e.Content[0] ^= 1 }), "the object has the checksum"},
	"no commit":                         {0, instead(drop(".commit"), ".commitmeta"), "the first object of the layer must be the commit"},
	"a second commit":                   {0, put(objectName(commitKind, 1), "commit"), "a second commit, after"},
	"metadata of another commit":        {0, put(objectName(commitMetaKind, 1), ""), "metadata of another commit than"},
	"a large directory":                 {0, put(objectName(dirTreeKind, 1), strings.Repeat("x", maxMetadataObject+1)), "more than the limit of 10485760"},
	"a commit in a chunk":               {1, put(objectName(commitKind, 1), "commit"), "a commit object, which only the image's first layer can hold"},
	"a directory in a chunk":            {2, put(objectName(dirTreeKind, 1), "\x00"), "a dirtree object, which only"},
	"another content":                   {1, change(".file", func(e *chunked.Entry) { e.Content = []byte("other") }), "the object has the checksum"},
	"another mode":                      {1, change(".file", func(e *chunked.Entry) { e.Mode ^= 0o100 }), "the object has the checksum"},
	"another owner":                     {2, change(".file", func(e *chunked.Entry) { e.Gid = 5 }), "the object has the checksum"},
	"an owner that cannot be":           {2, change(".file", func(e *chunked.Entry) { e.Uid = -1 }), "owner -1:0 is out of range"},
	"attributes of another name":        {1, change(".file-xattrs", func(e *chunked.Entry) { e.Content = []byte("x") }), "the object has the checksum"},
	"attributes that are none":          {1, put("objects/2d/711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881.file-xattrs", "x"), "array of (ayay)"},
	"too many attributes":               {1, put(objectName(xattrsKind, 1), strings.Repeat("x", maxXattrsObject+1)), "more than the limit of 1048576"},
	"no attributes of a file":           {1, instead(drop(".file-xattrs-link"), ".file"), "the entry before does not name the object's attributes"},
	"attributes that nothing has": {1, change(".file-xattrs-link", func(e *chunked.Entry) {
		e.Typeflag, e.Linkname = tar.TypeLink, "../aa/"+strings.Repeat("1", 62)+".file-xattrs"
	}), "which did not come before it"},
	"a link to no attributes":           {1, change(".file-xattrs-link", func(e *chunked.Entry) { e.Typeflag, e.Linkname = tar.TypeLink, "../../config" }), "the name is not that of an object"},
	"attributes without a file":         {1, dangling(".file-xattrs-link"), "names the attributes of a file object, which must follow it"},
	"attributes without a file at last": {1, put(objectName(xattrsLinkKind, 1), ""), "the object is missing: the layer's last entry"},
	"a file that is a device":           {1, change(".file", func(e *chunked.Entry) { e.Typeflag, e.Content = tar.TypeChar, nil }), "cannot be a tar entry of type"},
	"an object twice":                   {1, twice, "the layer has the object twice"},
	"dots in a name":                    {1, put("objects/ab/../cd/"+strings.Repeat("1", 62)+".file", ""), `".." component`},
	"a dot as a name":                   {1, put("objects/ab/.file", ""), "the name is not that of an object"},
	"a second type":                     {1, put(objectName(fileKind, 1)+".file", ""), "is no type of an object"},
	"an unknown type":                   {1, put(objectName("payload", 1), ""), "is no type of an object"},
	"a short name":                      {1, put("objects/ab/cd.file", ""), "the name is not that of an object"},
	"capitals in a name":                {1, put("objects/AB/"+strings.Repeat("1", 62)+".file", ""), "the name is not that of an object"},
	"a name without its folder":         {1, put("objects/"+strings.Repeat("1", 64)+".file", ""), "the name is not that of an object"},
}

// twice repeats a file object with the entry that names its attributes.
func twice(all []chunked.Entry) ([]chunked.Entry, string) {
	at := ofKind(all, ".file")
	return append(all, all[at-1], all[at]), all[at].Name
}

// TestNativeFaults damages the lower layers, of which all digests are right. A scan refuses each, and
// so does an import without one.
func TestNativeFaults(t *testing.T) {
	repo := smallCommit(t)
	for name, f := range nativeFaults {
		t.Run(name, func(t *testing.T) {
			entry := ""
			o := chunked.Options{Chunks: 2, Version: 1, Edit: func(layer int, entries []chunked.Entry) []chunked.Entry {
				if layer == f.layer {
					entries, entry = f.edit(entries)
				}
				return entries
			}}
			ref, layers := nativeRef(t, repo, o, plainLayer)
			_, _, err := scanNative(t, ref, ScanOptions{})
			if strings.Contains(f.says, "is missing: the layer's last") {
				entry = strings.TrimSuffix(entry, "-xattrs-link")
			}
			wantFault(t, err, digestOf(layers[f.layer].blob), entry, f.says)
			if _, err := importNative(t, ref); !errors.As(err, new(*SourceError)) {
				t.Errorf("without a scan: %v", err)
			}
			if _, err := importAs(t, ref, &placeSink{}, ImportOptions{OwnNames: true}); !errors.As(err, new(*SourceError)) {
				t.Errorf("by another sink: %v", err)
			}
		})
	}
}

// TestNativeLacks removes a file object, which is the commit's fault then, and cuts layers off.
func TestNativeLacks(t *testing.T) {
	repo := smallCommit(t)
	missing := ""
	o := chunked.Options{Chunks: 2, Version: 1, Edit: func(layer int, all []chunked.Entry) []chunked.Entry {
		if layer == 2 {
			at := ofKind(all, ".file")
			missing = all[at].Name
			all = slices.Delete(all, at-1, at+1) // with the link to its attributes
		}
		return all
	}}
	ref, layers := nativeRef(t, repo, o, plainLayer)
	_, _, err := scanNative(t, ref, ScanOptions{})
	wantFault(t, err, digestOf(layers[0].blob), missing, "the object is missing in the image's layers")
	for cut := range 2 {
		n := -1
		ref, layers := nativeRef(t, repo, chunked.Options{Chunks: 2, Version: 1}, func(plain []byte) blobLayer {
			if n++; n == cut {
				at := bytes.LastIndex(plain, []byte("ustar")) // in the last header, where the tar cannot end
				plain = plain[:at]
			}
			return gzipLayer(t, plain)
		})
		_, _, err := scanNative(t, ref, ScanOptions{})
		var fault *SourceError
		if !errors.As(err, &fault) || fault.Layer != digestOf(layers[cut].blob) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("layer %d cut off: %v", cut, err)
		}
	}
}

// TestNativeLabels opens images whose label names no layer, or two.
func TestNativeLabels(t *testing.T) {
	a, b := plainLayer(tarOf(t, file("a", "a"))), plainLayer(tarOf(t, file("b", "b")))
	for _, c := range []struct {
		labels map[string]string
		layers []blobLayer
		count  int
		says   string
	}{
		{nil, []blobLayer{a, b}, 0, ""},
		{map[string]string{"ostree.final-diffid": a.diffID}, []blobLayer{a, b}, 1, ""},
		{map[string]string{"ostree.diffid": b.diffID}, []blobLayer{a, b}, 2, ""},
		{map[string]string{"ostree.diffid": b.diffID, "ostree.final-diffid": a.diffID}, []blobLayer{a, b}, 1, ""},
		{map[string]string{"ostree.final-diffid": "sha256:0"}, []blobLayer{a, b}, 0, "no layer has the diff-id"},
		{map[string]string{"ostree.final-diffid": a.diffID}, []blobLayer{a, b, a}, 0, "2 layers have the diff-id"},
	} {
		l := newTestLayout(t)
		l.labels = c.labels
		img, err := Open(t.Context(), l.tag("latest", l.image(c.layers...)), accept(t))
		if c.says != "" {
			if !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %v, want %q", c.labels, err, c.says)
			}
			continue
		}
		must(t, err)
		if img.BaseLayers != c.count {
			t.Errorf("%v: %d base layers, want %d", c.labels, img.BaseLayers, c.count)
		}
		must(t, img.Close())
	}
}

// Lists that name each other without an end are bounded as entries are.
func TestNativeDoublingDirectories(t *testing.T) {
	meta, err := ostree.DirMeta{Mode: modeDir | 0o755}.Encode()
	must(t, err)
	var items []item
	add := func(kind objectKind, data []byte) ContentID {
		sum := ContentID(sumOf(data))
		items = append(items, file(repoPrefix+objectPath(kind, sum), string(data)))
		return sum
	}
	metaSum := add(dirMetaKind, meta)
	var below ContentID
	for level := range 40 {
		var list ostree.DirTree
		if level > 0 {
			for _, name := range []string{"a", "b"} {
				list.Dirs = append(list.Dirs, ostree.DirEntry{Name: name, Tree: ostree.Checksum(below), Meta: ostree.Checksum(metaSum)})
			}
		}
		data, err := list.Encode()
		must(t, err)
		below = add(dirTreeKind, data)
	}
	commit, err := ostree.Commit{Tree: ostree.Checksum(below), Meta: ostree.Checksum(metaSum)}.Encode()
	must(t, err)
	add(commitKind, commit)
	slices.Reverse(items)
	layer := plainLayer(tarOf(t, items...))
	l := newTestLayout(t)
	l.labels = map[string]string{"ostree.final-diffid": layer.diffID}
	_, _, err = scanNative(t, l.tag("latest", l.image(layer)), ScanOptions{ImportOptions: ImportOptions{MaxEntries: 10_000}})
	if !errors.As(err, new(*SourceError)) || !errors.Is(err, errTooManyEntries) {
		t.Errorf("%v", err)
	}
}

func sumOf(data []byte) ContentID {
	sum, _ := ostree.ParseChecksum(strings.TrimPrefix(digestOf(data), "sha256:"))
	return ContentID(sum)
}

// Files that a build has changed in the repository of the commit below come in by the first name
// that is a link to them.
func TestNativeTouchedObjects(t *testing.T) {
	object := repoPrefix + objectPath(fileKind, ContentID{1})
	other := repoPrefix + objectPath(fileKind, ContentID{2})
	at := func(i item) item { i.ModTime = time.Unix(1700000000, 0); return i }
	over := plainLayer(tarOf(t,
		at(file(object, "changed").mode(0o755).owner(3, 4)),
		at(hardlink("usr/bin/a", object)), at(hardlink("usr/bin/link", object)), at(hardlink("etc/third", "./"+object)),
		at(hardlink("usr/bin/b", other)),
	))
	ref, _ := nativeRef(t, smallCommit(t), chunked.Options{Chunks: 1, Version: 1}, plainLayer, over)
	tree, err := importNative(t, ref)
	must(t, err)
	first := tree.Lookup("usr/bin/a")
	if first == nil || first.Size != 7 || first.UID != 3 || first.Mode != modeRegular|0o755 {
		t.Fatalf("the changed file is %+v", first)
	}
	if tree.Lookup("usr/bin/link") != first || tree.Lookup("usr/etc/third") != first {
		t.Error("its other names have another file")
	}
	if b := tree.Lookup("usr/bin/b"); b == nil || b.Size != 1 || tree.Dropped["sysroot"] != 1 {
		t.Errorf("a link to an object that the layer has not: %+v, dropped %v", b, tree.Dropped)
	}
	if tree.Lookup("sysroot") != nil {
		t.Error("the repository of the build is in the tree")
	}
}
