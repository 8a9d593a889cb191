package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"installer/rootfs/xattr"
)

// importLayers imports an image of uncompressed layers.
func importLayers(t testing.TB, layers ...[]item) (*Tree, error) {
	t.Helper()
	var blobs []blobLayer
	for _, items := range layers {
		blobs = append(blobs, plainLayer(tarOf(t, items...)))
	}
	return importRef(t, layoutOf(t, blobs...), ImportOptions{})
}

// paths lists the paths of a tree without the root.
func paths(root *Node) []string {
	var all []string
	root.Walk(func(path string, n *Node) error {
		if path != "" {
			all = append(all, path)
		}
		return nil
	})
	return all
}

func wantPaths(t *testing.T, what string, root *Node, want ...string) {
	t.Helper()
	if got := paths(root); !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestEtcMoves(t *testing.T) {
	tree, err := importLayers(t,
		[]item{dir("etc", 0o750), file("etc/a", "a"), file("./etc/b", "b"), hardlink("etc/c", "/etc/a"), file("etc/hostname", ""), file("etc/resolv.conf", "x"), hardlink("usr/d", "etc/a")},
		[]item{file("etc/.wh.b", "")},
	)
	must(t, err)
	wantPaths(t, "merged", tree.Root, "usr", "usr/d", "usr/etc", "usr/etc/a", "usr/etc/c", "usr/etc/resolv.conf")
	wantPaths(t, "second layer", tree.Layers[1], "usr", "usr/etc", "usr/etc/.wh.b")
	if etc := tree.Lookup("usr/etc"); etc.Mode != modeDir|0o750 || !etc.Explicit {
		t.Errorf("metadata of /etc was lost: %o", etc.Mode)
	}
	if tree.Lookup("usr/etc/a") != tree.Lookup("usr/d") {
		t.Error("a hard link into /etc is not one")
	}
	if tree.Layers[0].Lookup("usr/etc/hostname") == nil {
		t.Error("the layer's own tree must stay as it is")
	}
}

func TestEtcAndUsrEtc(t *testing.T) {
	etc, usrEtc := []item{file("etc/a", "a")}, []item{file("usr/etc/b", "b")}
	_, err := importLayers(t, etc, usrEtc)
	if !errors.As(err, new(*SourceError)) || !strings.Contains(err.Error(), "/usr/etc") {
		t.Errorf("both populated: %v", err)
	}
	tree, err := importLayers(t, etc, usrEtc, []item{file(".wh.etc", "")})
	must(t, err)
	wantPaths(t, "whiteout of /etc", tree.Root, "usr", "usr/etc", "usr/etc/b")
	wantPaths(t, "its layer", tree.Layers[2], "usr", "usr/.wh.etc")
	tree, err = importLayers(t, usrEtc, []item{dir("etc", 0o755)})
	must(t, err)
	wantPaths(t, "empty /etc", tree.Root, "usr", "usr/etc", "usr/etc/b")
	tree, err = importLayers(t, append([]item{dir("usr/etc", 0o700)}, etc...))
	must(t, err)
	wantPaths(t, "empty /usr/etc", tree.Root, "usr", "usr/etc", "usr/etc/a")
	tree, err = importLayers(t, append([]item{symlink("etc", "usr/etc")}, usrEtc...))
	must(t, err)
	wantPaths(t, "link to /usr/etc", tree.Root, "usr", "usr/etc", "usr/etc/b")
	if _, err = importLayers(t, []item{file("etc", "a file")}); !errors.As(err, new(*SourceError)) {
		t.Errorf("a file as /etc: %v", err)
	}
}

func TestVolatileDirectoriesAreEmptied(t *testing.T) {
	tree, err := importLayers(t, []item{
		dir("tmp", 0o1777), file("tmp/x", "x"), dir("tmp/y", 0o755), dir("dev", 0o755),
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, Devminor: 3}},
		file("run/.wh.x", ""), file("run/deep/er", ""), file("var/run/x", "x"), dir("boot", 0o755), file("boot/x", "x"),
		hardlink("proc/x", "nowhere"),
	})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "boot", "boot/x", "dev", "tmp", "var", "var/run", "var/run/x")
	if want := map[string]int{"tmp": 2, "dev": 1, "run": 2, "proc": 1}; !reflect.DeepEqual(tree.Dropped, want) {
		t.Errorf("dropped %v, expected %v", tree.Dropped, want)
	}
	if tree.Lookup("tmp").Mode != modeDir|0o1777 {
		t.Errorf("mode of /tmp: %o", tree.Lookup("tmp").Mode)
	}
}

func TestWhiteouts(t *testing.T) {
	lower := []item{file("d/a", "a"), file("d/+b", "b"), file("d/sub/x", "x"), file("e/f", "f"), dir("e", 0o700)}
	tree, err := importLayers(t, lower, []item{
		file("d/.wh.a", ""), file("d/a", "its own"), // in either order
		file("d/+b", "its own"), file("d/.wh.+b", ""),
		file("d/.wh.sub", ""), file("e/g", "g"), file("e/.wh..wh..opq", ""),
		hardlink("n/.wh.nothing", "d/.wh.a"), file("n/.wh..wh.plnk", ""),
	})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "d", "d/+b", "d/a", "e", "e/g")
	if n := tree.Lookup("d/+b"); n.Size != int64(len("its own")) {
		t.Error("a whiteout removed its own layer's file")
	}
	if e := tree.Lookup("e"); e.Mode != modeDir|0o700 {
		t.Errorf("a directory without an entry overrode the lower one: %o", e.Mode)
	}
	wantPaths(t, "layer", tree.Layers[1], "d", "d/+b", "d/.wh.+b", "d/.wh.a", "d/.wh.sub", "d/a",
		"e", "e/.wh..wh..opq", "e/g", "n", "n/.wh.nothing")
	wantPaths(t, "lower layer", tree.Layers[0], "d", "d/+b", "d/a", "d/sub", "d/sub/x", "e", "e/f")
	if w := tree.Layers[1].Lookup("d/.wh.a"); !w.IsRegular() || w.Content == (ContentID{}) {
		t.Error("a whiteout in a layer's tree must be a stored file")
	}
}

func TestHardLinks(t *testing.T) {
	tree, err := importLayers(t, []item{
		hardlink("before", "a"), file("a", "first"), hardlink("b", "./a"), hardlink("d/c", "/b"),
		symlink("s", "a"), hardlink("s2", "s"), hardlink("a", "a"),
		file("a", "final").mode(0o4711).xattr("user.x", "y"),
		file("z", "z"), hardlink("gone", "z"), file("gone", "replaced"),
	})
	must(t, err)
	a := tree.Lookup("a")
	if a.Mode != modeRegular|0o4711 || len(a.Xattrs) != 1 {
		t.Errorf("the later entry did not win: %+v", a)
	}
	for _, name := range []string{"before", "b", "d/c"} {
		if tree.Lookup(name) != a {
			t.Errorf("%s is not the final object of its target", name)
		}
	}
	if s := tree.Lookup("s2"); !s.IsSymlink() || s.Target != "a" {
		t.Errorf("hard link to a symbolic link: %+v", s)
	}
	if tree.Lookup("gone").Size != int64(len("replaced")) {
		t.Error("a later file did not replace a hard link")
	}
}

func TestMissingParentsAndRoot(t *testing.T) {
	tree, err := importLayers(t,
		[]item{file("a/b/c", "c").owner(7, 8), dir("/", 0o711).owner(1, 2)},
		[]item{file("a/d", "d")}, nil,
	)
	must(t, err)
	for _, name := range []string{"a", "a/b"} {
		if n := tree.Lookup(name); n.Mode != modeDir|0o755 || n.UID != 0 || n.GID != 0 || n.Explicit {
			t.Errorf("missing parent %s: %+v", name, n.Meta)
		}
	}
	if tree.Root.Mode != modeDir|0o711 || tree.Root.UID != 1 || !tree.Root.Explicit {
		t.Errorf("root: %+v", tree.Root.Meta)
	}
	if len(tree.Layers) != 3 || len(tree.Layers[2].Children) != 0 || tree.Layers[2].Mode != modeDir|0o755 {
		t.Errorf("empty layer: %+v", tree.Layers[2])
	}
}

func TestDirectoryOverSymlinkIsNotFollowed(t *testing.T) {
	tree, err := importLayers(t, []item{dir("real", 0o755), symlink("link", "real")}, []item{file("link/x", "x")})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "link", "link/x", "real")
}

func TestXattrForms(t *testing.T) {
	x := file("x", "").xattr("user.raw", "raw\x00\xff").xattr("security.selinux", "label").xattr("user.both", "schily").xattr("user.empty", "")
	x.PAXRecords["LIBARCHIVE.xattr.user.%C3%BC"] = "AAH/Zg"
	x.PAXRecords["LIBARCHIVE.xattr.user.both"] = "AAAA"
	x.PAXRecords["LIBARCHIVE.xattr.user.padded"] = "YQ=="
	tree, err := importLayers(t, []item{x})
	must(t, err)
	want := "[{user.both schily} {user.padded a} {user.raw raw\x00\xff} {user.ü \x00\x01\xfff}]"
	if got := fmt.Sprintf("%s", tree.Lookup("x").Xattrs); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Linux does not know these attributes: they are left out and counted, as container engines do.
func TestIgnoredAttributes(t *testing.T) {
	unreadable := file("y", "")
	unreadable.PAXRecords = map[string]string{libarchiveXattr + "user.a": "!", libarchiveXattr + "%zz": "MQ"}
	tree, err := importLayers(t,
		[]item{file("x", "").xattr("com.apple.provenance", "1").xattr("user.a", "1"), unreadable},
		[]item{dir("d", 0o755).xattr("system.nfs4_acl", "1"), symlink("l", "x").xattr("system.posix_acl_access", "\x02\x00\x00\x00"), file("b", "").xattr("btrfs.compression", "zstd")})
	must(t, err)
	if want := (Ignored{Count: 6, First: "com.apple.provenance", Entry: "x"}); tree.Ignored != want {
		t.Errorf("ignored %+v, expected %+v", tree.Ignored, want)
	}
	if got := fmt.Sprintf("%s", tree.Lookup("x").Xattrs); got != "[{user.a 1}]" {
		t.Errorf("left are %s", got)
	}
	notes := strings.Join(tree.Notes(), "\n")
	if !strings.Contains(notes, "6 extended attributes") || !strings.Contains(notes, `"com.apple.provenance"`) {
		t.Errorf("notes: %s", notes)
	}
}

// Attributes of every layer are judged for the file system that they will be written to.
func TestAttributesThatFileSystemsRefuse(t *testing.T) {
	layers := []blobLayer{
		plainLayer(tarOf(t, file("d/x", "").xattr("user.big", strings.Repeat("a", 6000)))),
		plainLayer(tarOf(t, file("d/.wh.x", ""), dir("etc", 0o755).xattr("user.a", strings.Repeat("a", 4030)).xattr("user.b", "1"))),
	}
	for fs, want := range map[string]string{"xfs": "", "btrfs": "", "ext4": "d/x"} {
		img, err := Open(t.Context(), layoutOf(t, layers...), accept(t))
		must(t, err)
		inv, err := img.Scan(t.Context(), ScanOptions{})
		must(t, err)
		err = img.CheckRoom(inv.Tree, xattr.RoomOf(fs, 0))
		must(t, img.Close())
		if want == "" {
			must(t, err)
			continue
		}
		wantFault(t, err, layers[0].diffID, want, "install on xfs")
	}
	img, err := Open(t.Context(), layoutOf(t, layers[1]), accept(t))
	must(t, err)
	defer img.Close()
	inv, err := img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	wantFault(t, img.CheckRoom(inv.Tree, xattr.RoomOf("ext4", 0)), layers[1].diffID, "etc", "4096")
}

func TestSameLayerTwiceIsReadOnce(t *testing.T) {
	layer := gzipLayer(t, tarOf(t, file("a", "a"), file("b", "b")))
	remove := plainLayer(tarOf(t, file(".wh.b", "")))
	img, err := Open(t.Context(), layoutOf(t, layer, remove, layer), accept(t))
	must(t, err)
	defer img.Close()
	sink := &memorySink{}
	tree, err := img.Import(t.Context(), sink, ImportOptions{})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "a", "b")
	if tree.Layers[0] != tree.Layers[2] || sink.stored != 3 {
		t.Errorf("stored %d contents, expected 3", sink.stored)
	}
}

// A whiteout in a directory that has no entry does not bring the directory back, or replace a file.
func TestWhiteoutsBringNothingBack(t *testing.T) {
	lower := []item{file("d/e/x", "x"), file("d/y", "y"), file("f", "f"), file("k/x", "x")}
	tree, err := importLayers(t, lower, []item{file(".wh.d", "")}, []item{
		file("d/.wh.x", ""), file("d/e/.wh.y", ""), file("f/.wh.z", ""), file("new/deep/.wh..wh..opq", ""), file("k/.wh.x", ""),
		dir("made", 0o755), file("made/.wh.x", ""), file("d2/.wh.x", ""), file("d2/e/z", "z"),
	})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "d2", "d2/e", "d2/e/z", "f", "k", "made")
	if f := tree.Lookup("f"); !f.IsRegular() {
		t.Error("a whiteout below a file replaced the file")
	}
	// The same as a whole in one layer.
	tree, err = importLayers(t, lower, []item{file(".wh.d", ""), file("d/.wh.x", "")})
	must(t, err)
	wantPaths(t, "one layer", tree.Root, "f", "k", "k/x")
}

// Records of AUFS are dropped as container engines drop them, but for the files that hard links
// lead to.
func TestAUFSRecords(t *testing.T) {
	tree, err := importLayers(t, []item{file("x", "x")}, []item{
		file(".wh..wh.aufs", ""), dir(".wh..wh.orph/", 0o700), dir(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/12.34", "content"),
		hardlink("a", ".wh..wh.plnk/12.34"), hardlink("d/b", "/.wh..wh.plnk/12.34"),
		dir("d/.wh..wh.aufs", 0o755), file("d/.wh..wh.aufs/x", ""), symlink(".wh..wh.link", "x"), device(tar.TypeChar, ".wh..wh.device"),
		file("o/.wh..wh..opq", ""),
	})
	must(t, err)
	wantPaths(t, "merged", tree.Root, "a", "d", "d/b", "x")
	wantPaths(t, "layer", tree.Layers[1], "a", "d", "d/b", "o", "o/.wh..wh..opq")
	if a := tree.Lookup("a"); a != tree.Lookup("d/b") || a.Size != int64(len("content")) || a.Content == (ContentID{}) {
		t.Errorf("the hard links lead to %+v", a)
	}
	if want := map[string]int{aufsPrefix: 8}; !reflect.DeepEqual(tree.Dropped, want) {
		t.Errorf("dropped %v, expected %v", tree.Dropped, want)
	}
	if _, err := importLayers(t, []item{hardlink("a", ".wh..wh.plnk/none")}); !errors.As(err, new(*SourceError)) {
		t.Errorf("a link to a record that is not there: %v", err)
	}
}
