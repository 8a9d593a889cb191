package tests

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"installer/tests/layout"
)

// hugeSize is that of a file whose length does not fit 32 bits, in bytes. All but its ends is a
// hole.
const hugeSize = 4<<30 + 1<<20

// item is an entry of a layer.
type item struct {
	tar.Header
	body string
}

func file(name, body string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func directory(name string, mode int64) item {
	return item{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func symlink(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardLink(name, target string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

func (i item) mode(m int64) item       { i.Mode = m; return i }
func (i item) owner(uid, gid int) item { i.Uid, i.Gid = uid, gid; return i }

// xattr adds an extended attribute, as GNU tar and all container tools write it.
func (i item) xattr(name, value string) item {
	records := map[string]string{"SCHILY.xattr." + name: value}
	for k, v := range i.PAXRecords {
		records[k] = v
	}
	i.PAXRecords = records
	return i
}

// writeItems is a fill function of a layer.
func writeItems(items ...item) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		for _, i := range items {
			i.Size = int64(len(i.body))
			if err := w.WriteHeader(&i.Header); err != nil {
				return err
			}
			if _, err := w.Write([]byte(i.body)); err != nil {
				return err
			}
		}
		return nil
	}
}

// manyFiles are enough for a directory's object to exceed 16 KiB.
func manyFiles(prefix string, n int) (items []item) {
	for i := range n {
		name := fmt.Sprintf("usr/share/crowd/%s-file-with-a-long-name-%04d", prefix, i)
		items = append(items, file(name, fmt.Sprintf("%s %d", prefix, i%50)))
	}
	return items
}

// capability is a security.capability value with cap_net_raw, permitted and effective (struct
// vfs_cap_data of <linux/capability.h>, revision 2).
func capability() string {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	return string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, 1<<13), 0))
}

// accessList is a system.posix_acl_access value: rw for user 1000 beside the usual three (struct
// posix_acl_xattr_header of <linux/posix_acl_xattr.h>).
func accessList() string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{0x01, 6, ^uint32(0)}, {0x02, 6, 1000}, {0x04, 4, ^uint32(0)}, {0x10, 6, ^uint32(0)}, {0x20, 4, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

// featureLayers are layers with everything that an image's tars can hold, lowest first. Those that
// Go cannot write come from GNU tar, see gnuTree.
func featureLayers() [][]item {
	const d = "usr/share/features/"
	long := d + strings.Repeat("a-directory-with-a-long-name/", 12)
	deep := d + strings.Repeat("d/", 200)
	return [][]item{
		{directory(d, 0o755), file(d+"plain", "plain"), file(d+"empty", ""), file(d+"also empty", "")},
		{file(d+"original", "shared"), hardLink(d+"link", d+"original"), hardLink(d+"link-to-link", d+"link"),
			directory(d+"elsewhere/", 0o700), hardLink(d+"elsewhere/link", d+"link-to-link"), hardLink(d+"forward-dir/link", d+"original")},
		{symlink(d+"symlink", "plain"), symlink(d+"symlink-mode", "plain").mode(0o644), symlink(d+"dangling", "/nowhere/"+strings.Repeat("x", 1000)),
			symlink(d+"owned-symlink", "plain").owner(12, 34), hardLink(d+"link-to-symlink", d+"symlink")},
		{file(d+"xattrs", "x").xattr("user.b", "2").xattr("user.a", "\x00\xff1").xattr("trusted.t", "t"),
			file(d+"capable", "c").xattr("security.capability", capability()).mode(0o755),
			file(d+"acl", "a").xattr("system.posix_acl_access", accessList()).mode(0o664),
			directory(d+"xattr-dir/", 0o755).xattr("user.dir", "d")},
		{file(d+"setuid", "s").mode(0o4755), file(d+"setgid", "s").mode(0o2750).owner(0, 7), file(d+"sticky", "s").mode(0o1644),
			file(d+"no-mode", "s").mode(0), directory(d+"sticky-dir/", 0o1777), directory(d+"setgid-dir/", 0o2775).owner(5, 6)},
		{file(d+"owner", "o").owner(4294967294, 4294967294), directory(d+"owner-dir/", 0o711).owner(2147483648, 65536),
			file(d+"owner-setuid", "o").owner(1000, 1000).mode(0o6711).xattr("security.capability", capability())},
		{file(d+"new\nline", "n"), file(d+"tab\tand \"quotes\" and \\", "q"), file(d+"日本語-éè-\U0001f980", "u"), file(d+" leading", "l"),
			file(d+strings.Repeat("n", 255), "255"), file(d+"-dash", "-"), file(d+".hidden", "."), file(d+"...", "dots")},
		{file(long+"file", "pax long name"), symlink(long+"link", long+"file"), hardLink(long+"hard", long+"file")},
		{file(deep+"bottom", "deep")},
		{file(d+"missing/parents/of/this", "no directory has an entry"), file("./"+d+"dotted", "./"), file("/"+d+"slashed", "/"),
			file(d+"./twice//slashed", "//")},
		{file(d+"repeated", "first").mode(0o600), file(d+"repeated", "second, and final").mode(0o640).owner(1, 2),
			directory(d+"repeated-dir/", 0o700), directory(d+"repeated-dir/", 0o751).owner(3, 4), file(d+"repeated-dir/x", "x")},
		{file(d+"to-be-removed", "r"), file(d+"dir-to-be-removed/a/b", "r"), file(d+"opaque/below", "hidden"), file(d+"opaque/also", "hidden"),
			file(d+"becomes-directory", "f"), file(d+"becomes-symlink/inside", "d"), file(d+"comes-back", "1"), symlink(d+"link-becomes-file", "plain"),
			directory(d+"dir-meta/", 0o755), file(d+"dir-meta/kept", "k"), symlink(d+"link-becomes-directory", "elsewhere")},
		{file(d+".wh.to-be-removed", ""), file(d+".wh.dir-to-be-removed", ""), file(d+"opaque/.wh..wh..opq", ""), file(d+"opaque/new", "n"),
			directory(d+"becomes-directory/", 0o755), file(d+"becomes-directory/inside", "i"), symlink(d+"becomes-symlink", "elsewhere"),
			file(d+".wh.comes-back", ""), file(d+"link-becomes-file", "f"), directory(d+"dir-meta/", 0o2700).owner(8, 9),
			directory(d+"link-becomes-directory/", 0o755), file(d+"link-becomes-directory/inside", "not elsewhere")},
		{file(d+"becomes-directory", "and back"), directory(d+"becomes-symlink/", 0o711), file(d+"becomes-symlink/again", "a"),
			file(d+"comes-back", "2"), file(d+"dir-meta/added", "a")},
		manyFiles("first", 600),
		append([]item{directory("usr/share/crowd/", 0o755), file("usr/share/crowd/.wh..wh..opq", "")}, manyFiles("second", 500)...),
		nil, // an empty layer
		{file("etc/features.conf", "etc").mode(0o600), directory("etc/features.d/", 0o750).owner(0, 4), file("etc/features.d/a", "a"),
			file("etc/removed", "r"), file("etc/hostname", ""), symlink("etc/link", "features.conf")},
		{file("etc/.wh.removed", ""), file("etc/features.conf", "changed").mode(0o644), file("var/lib/features/state", "v"),
			file("tmp/dropped", "t"), file("run/dropped", "r"), file("opt/vendor/bin", "top level").mode(0o755)},
	}
}

// gnuTree is a tree for GNU tar: a sparse file of several GiB, and names that need its own format.
func gnuTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	base := filepath.Join(tree, "usr/share/gnu")
	must(t, os.MkdirAll(base, 0o755))
	f, err := os.Create(filepath.Join(base, "huge"))
	must(t, err)
	for pos, text := range map[int64]string{0: "begin", 3 << 30: "middle", hugeSize - 3: "end"} {
		_, err := f.WriteAt([]byte(text), pos)
		must(t, err)
	}
	must(t, f.Close())
	long := filepath.Join(base, strings.Repeat("long-", 30), strings.Repeat("name-", 30))
	must(t, os.MkdirAll(long, 0o755))
	must(t, os.WriteFile(filepath.Join(long, "file"), []byte("gnu long name"), 0o644))
	must(t, os.Symlink(filepath.Join("..", strings.Repeat("target-", 30)), filepath.Join(long, "link")))
	return tree
}

// gnuTar packs a part of the tree and returns the tar's name.
func gnuTar(t *testing.T, tree string, args ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.tar")
	mustCommand(t, "tar", append([]string{"--create", "--file", name, "-C", tree, "--sort=name", "--owner=0", "--group=0", "--numeric-owner"}, args...)...)
	return name
}

// featureImage is TinyImage under all of these layers. The oracle is the tree that umoci makes of
// it, but for the uppermost layer, whose file of several GiB would take umoci a minute: GNU tar
// adds it.
func featureImage(t *testing.T) (ref, oracle string) {
	t.Helper()
	tree := gnuTree(t)
	huge := gnuTar(t, tree, "--format=posix", "--sparse", "usr/share/gnu/huge")
	most, tag := stackOn(t, TinyImage(t), func(s *layout.Stack) {
		for _, items := range featureLayers() {
			must(t, s.Add(writeItems(items...)))
		}
		addTarFile(t, s, gnuTar(t, tree, "--format=gnu", "--exclude=huge", "usr/share/gnu"))
	})
	bundle := filepath.Join(t.TempDir(), "bundle")
	must(t, unpack(t.Context(), most+":"+tag, bundle))
	oracle = filepath.Join(bundle, "rootfs")
	mustCommand(t, "tar", "--extract", "--file", huge, "-C", oracle)
	all, tag := stackOn(t, "oci:"+most+":"+tag, func(s *layout.Stack) { addTarFile(t, s, huge) })
	return "oci:" + all + ":" + tag, oracle
}

// stackOn makes a layout of the image with the layers that add puts on top of it.
func stackOn(t *testing.T, ref string, add func(*layout.Stack)) (dir, tag string) {
	t.Helper()
	src, tag := splitRef(ref)
	dir = filepath.Join(t.TempDir(), "oci")
	s, err := layout.Begin(src, dir)
	must(t, err)
	add(s)
	s.SetCreated(time.Date(2024, 2, 29, 12, 30, 15, 0, time.UTC))
	must(t, s.Finish(nil))
	return dir, tag
}

func addTarFile(t *testing.T, s *layout.Stack, name string) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	must(t, s.AddTar(f))
}

func tarDevice(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeBlock, Name: name, Mode: 0o600, Devmajor: 7}
}
