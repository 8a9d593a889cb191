package composefs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/rootfs/xattr"
	"installer/tests/kit"
)

// dir makes a directory; its entries come in any order.
func dir(entries ...Entry) *Inode {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return &Inode{Mode: modeDir | 0o755, Entries: entries}
}

func hole(size uint64, path string) *Inode {
	return &Inode{Mode: modeRegular | 0o644, Links: 1, Size: size, Path: path}
}

func inline(content string) *Inode {
	return &Inode{Mode: modeRegular | 0o644, Links: 1, Content: []byte(content)}
}

func symlink(target string) *Inode {
	return &Inode{Mode: modeSymlink | 0o777, Links: 1, Target: target}
}

func whiteout() *Inode { return &Inode{Mode: modeChar | 0o600, Links: 1} }

func attrs(n *Inode, pairs ...string) *Inode {
	for i := 0; i < len(pairs); i += 2 {
		n.Xattrs = append(n.Xattrs, xattr.Attr{Name: pairs[i], Value: []byte(pairs[i+1])})
	}
	return n
}

var ofLibostree = Versions{Min: 0, Max: 1}

// The example that is worked out byte by byte in descriptions of the format.
func TestExample(t *testing.T) {
	at := func(n *Inode, sec int64) *Inode { n.MtimeSec = sec; return n }
	small := at(inline("hello"), 1000)
	small.Links = 2
	big := at(attrs(hole(10000, "ab/cdef"), "user.a", "b"), 1000)
	big.Mode, big.UID, big.Digest = modeRegular|0o755, 70000, make([]byte, 32)
	for i := range big.Digest {
		big.Digest[i] = byte(i)
	}
	etc := at(attrs(dir(Entry{Name: "hl", Inode: small, Link: true}, Entry{Name: "small", Inode: small}, Entry{Name: "sym", Inode: at(symlink("small"), 1000)}), "user.a", "b"), 2000)
	etc.MtimeNsec = 5
	root := at(attrs(dir(Entry{Name: "etc", Inode: etc}, Entry{Name: "big", Inode: big}), xattr.SELinux, "system_u:object_r:root_t:s0\x00"), 1000)
	for version, want := range map[int]string{
		0: "83b0e91ed707df637863c2b7db4bff11b58c834d25c92903cde1293503abf317",
		1: "e85eae5642958df44bd7b252d30591d31c688aab63a38e2c64a3da3987cc7b07",
	} {
		data := same(t, root, Versions{Min: version, Max: 1})
		if got := verityOf(data); got != want || len(data) != 24576 {
			t.Errorf("version %d: %d bytes with digest %s, want %s", version, len(data), got, want)
		}
	}
	data := same(t, root, ofLibostree)
	if got := sha(data); got != "6bf2d77a94ddf43d72950f18c619d70e0039b2b412844de46c6760c1be0ea2ba" {
		t.Errorf("SHA-256 %s", got)
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(kit.Oracle(t, "composefs-info", "measure-file", path)); got != verityOf(data) {
		t.Errorf("composefs-info measures %s", got)
	}
	got := kit.Oracle(t, "composefs-info", "dump", path)
	for _, want := range []string{"/etc/small 5 @100644 2 0 0 0 1000.0 /etc/hl", "/big 10000 100755 1 70000 0 0 1000.0 ab/cdef"} {
		if !strings.Contains(got, want) {
			t.Errorf("composefs-info shows no %q in:\n%s", want, got)
		}
	}
}

func manyEntries(count, length int) []Entry {
	var out []Entry
	for i := range count {
		out = append(out, Entry{Name: fmt.Sprintf("%0*d", length, i), Inode: hole(uint64(i), fmt.Sprintf("%02x/%d.file", i%256, i))})
	}
	return out
}

func manyXattrs(n *Inode, prefix string, count int) *Inode {
	for i := range count {
		n.Xattrs = append(n.Xattrs, xattr.Attr{Name: fmt.Sprintf("%s%03d", prefix, i), Value: fmt.Appendf(nil, "value %d", i)})
	}
	return n
}

// libcomposefs writes the same bytes for trees that are at the format's edges.
func TestImageIsThatOfLibcomposefs(t *testing.T) {
	named := func(names ...string) []Entry {
		var out []Entry
		for _, n := range names {
			out = append(out, Entry{Name: n, Inode: hole(5, "")})
		}
		return out
	}
	owned := hole(100, "xx")
	owned.UID, owned.GID, owned.Links = 1<<31, 70000, 70000
	acl := attrs(dir(), xattr.ACLDefault, "\x02\x00\x00\x00\x01\x00\x07\x00", "system.posix_acl_accessories", "odd")
	deep := dir()
	for range 300 {
		deep = dir(Entry{Name: "d", Inode: deep})
	}
	device := func(mode, rdev uint32) *Inode { return &Inode{Mode: mode | 0o600, Links: 1, Rdev: rdev} }
	old := hole(4096, "old")
	old.MtimeSec, old.MtimeNsec = -5, 999999999
	for name, root := range map[string]*Inode{
		"empty":                dir(),
		"attributes":           attrs(dir(named("a", "b")...), "user.x", "1", "trusted.overlay.opaque", "n", "odd", "v", xattr.SELinux, "label\x00"),
		"early names":          dir(named("-", "!", ".a", "..a", "...", "+x", "a", "\x01", "\xff\xfe", strings.Repeat("n", 255))...),
		"folders of objects":   dir(append(named("0", "00", "000", "7f", "FF", "fe", "g"), Entry{Name: "ff", Inode: dir()})...),
		"empty file":           dir(Entry{Name: "empty", Inode: hole(0, "")}),
		"sizes":                dir(Entry{Name: "a", Inode: hole(1, "a/b")}, Entry{Name: "b", Inode: hole(1<<43, "c")}, Entry{Name: "c", Inode: hole(1<<43+1, "d")}, Entry{Name: "d", Inode: hole(1<<52, "e")}, Entry{Name: "e", Inode: hole(1<<32, "e")}),
		"contents":             dir(Entry{Name: "a", Inode: inline("x")}, Entry{Name: "b", Inode: inline(strings.Repeat("y", 2048))}, Entry{Name: "c", Inode: inline(strings.Repeat("z", 2049))}, Entry{Name: "d", Inode: inline(strings.Repeat("w", 5000))}, Entry{Name: "e", Inode: inline(strings.Repeat("v", 4096))}),
		"targets":              dir(Entry{Name: "a", Inode: symlink("x")}, Entry{Name: "b", Inode: symlink(strings.Repeat("y", 4095))}, Entry{Name: "c", Inode: symlink(strings.Repeat("z", 4064))}, Entry{Name: "d", Inode: symlink(strings.Repeat("w", 4063))}, Entry{Name: "e", Inode: symlink(strings.Repeat("v", 2000))}),
		"large directory":      dir(Entry{Name: "d", Inode: dir(manyEntries(2500, 8)...)}),
		"half a block":         dir(Entry{Name: "d", Inode: dir(manyEntries(100, 8)...)}, Entry{Name: "e", Inode: dir(manyEntries(101, 8)...)}, Entry{Name: "f", Inode: dir(manyEntries(102, 8)...)}),
		"owners":               dir(Entry{Name: "a", Inode: owned}),
		"times":                dir(Entry{Name: "a", Inode: old}, Entry{Name: "b", Inode: dir()}),
		"lists of access":      dir(Entry{Name: "a", Inode: acl}),
		"deep":                 deep,
		"devices":              dir(Entry{Name: "c", Inode: device(modeChar, 0x103)}, Entry{Name: "b", Inode: device(modeBlock, 0x800)}, Entry{Name: "p", Inode: device(modeFifo, 0)}, Entry{Name: "s", Inode: device(modeSocket, 0)}, Entry{Name: "b0", Inode: device(modeBlock, 0)}),
		"whiteouts":            dir(Entry{Name: "d", Inode: attrs(dir(Entry{Name: "gone", Inode: attrs(whiteout(), "user.overlay.whiteout", "was", xattr.SELinux, "x")}), "trusted.overlay.opaque", "y", "user.overlay.whiteouts", "z")}, Entry{Name: "e", Inode: dir()}),
		"whiteout in the root": dir(Entry{Name: "gone", Inode: whiteout()}),
		"shared attributes":    dir(Entry{Name: "a", Inode: manyXattrs(hole(5, "a"), "user.", 200)}, Entry{Name: "b", Inode: manyXattrs(hole(5, "a"), "user.", 200)}, Entry{Name: "c", Inode: manyXattrs(dir(), "trusted.n", 129)}, Entry{Name: "d", Inode: manyXattrs(dir(), "trusted.n", 128)}),
		"large attribute":      dir(Entry{Name: "a", Inode: attrs(hole(5, "a"), "user.a", strings.Repeat("v", 30000))}),
		"empty attribute":      dir(Entry{Name: "a", Inode: attrs(symlink("a"), "user.a", "", "user.b", "")}, Entry{Name: "b", Inode: attrs(symlink("a"), "user.a", "x", "user.b", "")}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []Versions{{0, 0}, {0, 1}, {1, 1}} {
				same(t, root, v)
			}
		})
	}
}

// TestRandomTrees compares images of trees that are made by chance; the seed is in the name.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &randomTree{rand.New(rand.NewPCG(seed, 7)), nil}
			root := r.dir(0)
			same(t, root, []Versions{{0, 0}, {0, 1}, {1, 1}}[seed%3])
		})
	}
}

// randomTree makes trees in which sizes and numbers are often at the edge of something.
type randomTree struct {
	*rand.Rand
	files []*Inode
}

func (r *randomTree) pick(n ...int) int { return n[r.IntN(len(n))] }

func (r *randomTree) bytes(n int) string {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(1 + r.IntN(255))
	}
	return strings.ReplaceAll(string(out), "/", "_")
}

func (r *randomTree) meta(n *Inode) *Inode {
	n.Mode |= uint32(r.IntN(0o10000))
	if r.IntN(3) == 0 {
		n.UID, n.GID = uint32(r.pick(0, 1000, 65535, 65536, 1<<31)), uint32(r.pick(0, 65535, 65536))
	}
	if r.IntN(3) == 0 {
		n.MtimeSec, n.MtimeNsec = int64(r.pick(-1, 0, 1, 1<<32)), uint32(r.pick(0, 1, 999999999))
	}
	for range r.pick(0, 0, 0, 1, 2, 5) {
		prefix := []string{"user.", "trusted.", "security.", "trusted.overlay.", "user.overlay.", "system.posix_acl_access", "odd."}[r.IntN(7)]
		// No name that the marks of whiteouts replace: libcomposefs miscounts some that it replaces.
		x := xattr.Attr{Name: prefix + []string{"a", "bb", "metacopy", r.bytes(r.pick(1, 20))}[r.IntN(4)], Value: []byte(r.bytes(r.pick(0, 1, 2, 3, 300)))}
		if r.IntN(2) == 0 {
			x.Value = []byte([]string{"", "same", "alike"}[r.IntN(3)])
		}
		if !slices.ContainsFunc(n.Xattrs, func(o xattr.Attr) bool { return o.Name == x.Name }) {
			n.Xattrs = append(n.Xattrs, x)
		}
	}
	return n
}

func (r *randomTree) dir(depth int) *Inode {
	entries := map[string]Entry{}
	for range r.pick(0, 1, 3, 10, 30, 130) / (depth + 1) {
		e := Entry{Name: r.bytes(r.pick(1, 2, 5, 12, 200))}
		switch {
		case e.Name == "." || e.Name == ".." || entries[e.Name].Inode != nil:
			continue
		case depth < 3 && r.IntN(5) == 0:
			e.Inode = r.dir(depth + 1)
		case r.IntN(8) == 0 && len(r.files) > 0:
			e.Inode, e.Link = r.files[r.IntN(len(r.files))], true
		default:
			e.Inode = r.file()
		}
		entries[e.Name] = e
	}
	n := &Inode{Mode: modeDir}
	for _, e := range entries {
		n.Entries = append(n.Entries, e)
	}
	slices.SortFunc(n.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return r.meta(n)
}

func (r *randomTree) file() *Inode {
	n := &Inode{Links: uint32(r.pick(1, 2, 65536))}
	switch r.IntN(10) {
	case 0:
		n.Mode = modeChar
		return r.meta(n) // a whiteout, which has one name
	case 1:
		n.Mode, n.Rdev = []uint32{modeChar, modeBlock}[r.IntN(2)], uint32(r.pick(0x103, 0x800))
	case 2:
		n.Mode = []uint32{modeFifo, modeSocket}[r.IntN(2)]
	case 3, 4:
		n.Mode, n.Target = modeSymlink, r.bytes(r.pick(1, 10, 100, 2000, 4000, 4050, 4095))
	case 5, 6:
		n.Mode, n.Content = modeRegular, []byte(r.bytes(r.pick(0, 1, 64, 500, 2047, 2048, 2049, 4095, 4096, 4097, 5000)))
	default:
		n.Mode, n.Size = modeRegular, uint64(r.pick(0, 1, 4096, 4097, 1<<20, 1<<32-1, 1<<32, 1<<43, 1<<43+1, 1<<50))
		if r.IntN(4) > 0 && n.Size > 0 {
			n.Path = r.bytes(r.pick(1, 66))
		}
		if r.IntN(2) == 0 && n.Size > 0 {
			n.Digest = []byte(r.bytes(32))
		}
	}
	r.files = append(r.files, n)
	return r.meta(n)
}

// The tree stays as it is: it is made once for several uses.
func TestTreeIsNotChanged(t *testing.T) {
	root := (&randomTree{rand.New(rand.NewPCG(3, 7)), nil}).dir(0)
	before := dump(root)
	if _, err := write(t, root, ofLibostree); err != nil {
		t.Fatal(err)
	}
	if dump(root) != before {
		t.Error("New changed the tree")
	}
}

// Trees that libcomposefs refuses are refused.
func TestRefused(t *testing.T) {
	file := hole(5, "a")
	for name, c := range map[string]struct {
		root *Inode
		here bool // only here: the text form cannot say it
	}{
		"no directory":           {file, false},
		"long target":            {dir(Entry{Name: "a", Inode: symlink(strings.Repeat("a", 4096))}), false},
		"large content":          {dir(Entry{Name: "a", Inode: inline(strings.Repeat("a", 5001))}), false},
		"long name":              {dir(Entry{Name: strings.Repeat("a", 256), Inode: file}), false},
		"many attributes":        {dir(Entry{Name: "a", Inode: manyXattrs(hole(5, "a"), "user."+strings.Repeat("n", 90), 400)}), false},
		"long attribute":         {dir(Entry{Name: "a", Inode: attrs(hole(5, "a"), "user."+strings.Repeat("n", 256), "v")}), false},
		"name with a slash":      {dir(Entry{Name: "a/b", Inode: file}), true},
		"names out of order":     {&Inode{Mode: modeDir, Entries: []Entry{{Name: "b", Inode: file}, {Name: "a", Inode: file}}}, true},
		"link to no other entry": {dir(Entry{Name: "a", Inode: file, Link: true}), true},
		"no kind":                {dir(Entry{Name: "a", Inode: &Inode{Mode: 0o644}}), true},
	} {
		if _, err := New(c.root, ofLibostree); err == nil {
			t.Errorf("%s: no error", name)
		}
		if c.here {
			continue
		}
		if _, err := mkcomposefs(t, dump(c.root), ofLibostree); err == nil {
			t.Errorf("%s: mkcomposefs takes it", name)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteError(t *testing.T) {
	img, err := New(dir(), ofLibostree)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.WriteTo(broken{}); err == nil {
		t.Error("no error")
	}
}

// largeTree is a tree of so many files as libostree describes them.
func largeTree(files int) *Inode {
	var dirs []Entry
	for d := range files / 100 {
		var entries []Entry
		for i := range 100 {
			n := attrs(hole(uint64(1+d*i), fmt.Sprintf("%02x/%060d.file", i, d*100+i)), xattr.SELinux, fmt.Sprintf("system_u:object_r:type_%d_t:s0\x00", d%97))
			n.Digest = bytes.Repeat([]byte{byte(d), byte(i)}, 16)
			entries = append(entries, Entry{Name: fmt.Sprintf("file-%04d", i), Inode: n})
		}
		dirs = append(dirs, Entry{Name: fmt.Sprintf("dir-%06d", d), Inode: attrs(dir(entries...), xattr.SELinux, "system_u:object_r:usr_t:s0\x00")})
	}
	return dir(Entry{Name: "usr", Inode: dir(dirs...)})
}

// TestLarge has an image of 100,000 files.
func TestLarge(t *testing.T) { same(t, largeTree(100_000), ofLibostree) }

func BenchmarkImage(b *testing.B) {
	root := largeTree(100_000)
	b.ReportAllocs()
	for b.Loop() {
		img, err := New(root, ofLibostree)
		if err != nil {
			b.Fatal(err)
		}
		h := NewHash()
		if _, err := img.WriteTo(h); err != nil {
			b.Fatal(err)
		}
	}
}
