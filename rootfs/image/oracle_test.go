package image

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// richLayers use every feature of a layer that an unpacker must agree on. /etc is left out, for it
// moves; see TestEtcMoves.
func richLayers(t testing.TB) []blobLayer {
	long := strings.Repeat("long-", 40)
	base := tarOf(t,
		dir("./", 0o755),
		dir("./usr/", 0o755), dir("usr/bin", 0o755), dir("usr/lib", 0o755), dir("usr/share", 0o755),
		dir("tmp", 0o1777), dir("run", 0o755), dir("var", 0o755),
		file("usr/bin/su", "setuid program").mode(0o4755),
		file("usr/bin/ping", "capable").mode(0o755).xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		file("usr/bin/empty", ""),
		file("usr/bin/replaced", "first"),
		file("usr/lib/to-dir", "a file, later a directory"),
		dir("usr/lib/to-file", 0o755), file("usr/lib/to-file/inner", "gone"),
		dir("usr/lib/to-link", 0o755), file("usr/lib/to-link/inner", "gone"),
		dir("usr/share/opaque", 0o755), file("usr/share/opaque/old", "old"),
		dir("usr/share/opaque/sub", 0o700), file("usr/share/opaque/sub/old", "old"),
		dir("usr/share/removed", 0o755), file("usr/share/removed/x", "x"),
		file("usr/share/single", "to be removed"),
		dir("usr/share/chmod", 0o755), file("usr/share/chmod/stays", "stays"),
		symlink("usr/lib/link", "../bin/su"), symlink("usr/lib/dangling", "/no/where"),
		hardlink("usr/lib/su-again", "usr/bin/su"),
		file("usr/share/big", strings.Repeat("0123456789abcdef", 40_000)),
	)
	second := tarOf(t,
		file("usr/bin/replaced", "second").owner(1000, 1001),
		dir("usr/lib/to-dir", 0o711), file("usr/lib/to-dir/new", "new"),
		file("usr/lib/to-file", "now a file"),
		symlink("usr/lib/to-link", "to-dir"),
		file("usr/share/opaque/.wh..wh..opq", ""), file("usr/share/opaque/new", "new"),
		file("usr/share/.wh.removed", ""), file("usr/share/.wh.single", ""),
		dir("usr/share/chmod", 0o2750).owner(0, 42),
		file("usr/share/"+long+"/"+long+"/name", "long"),
		file("usr/share/new\nline ü €", "odd names"),
		item{tar.Header{Typeflag: tar.TypeReg, Name: "usr/share/large-ids", Mode: 0o600, Uid: 4294967294, Gid: 4294967293, Format: tar.FormatPAX}, "ids"},
		item{tar.Header{Typeflag: tar.TypeReg, Name: "usr/share/gnu/" + long + "/" + long, Mode: 0o600, Format: tar.FormatGNU}, "gnu"},
		file("usr/share/attributed", "x").xattr("user.one", "1").xattr("user.two", "a\x00b"),
		dir("usr/share/attributed-dir", 0o755).xattr("user.dir", "yes"),
	)
	third := tarOf(t,
		file("usr/lib/to-dir/new", "newer"),
		file("usr/share/single", "back again"),
		dir("usr/share/twice", 0o750), file("usr/share/entry", "later").mode(0o640),
		hardlink("usr/share/a", "usr/share/entry"), hardlink("usr/share/twice/b", "usr/share/a"),
		symlink("usr/share/sym", "entry"), hardlink("usr/share/sym-again", "usr/share/sym"),
		file("usr/lib/.wh.to-link", ""),
	)
	return []blobLayer{gzipLayer(t, base), zstdLayer(t, second), plainLayer(third), gzipLayer(t, tarOf(t))}
}

// repeats is a layer in which later entries replace earlier ones. tar-split, and so
// containers-storage, does not take it.
func repeats(t testing.TB) blobLayer {
	return gzipLayer(t, tarOf(t,
		dir("opt/twice", 0o700), file("opt/twice/kept", "kept"), dir("opt/twice", 0o750),
		file("opt/entry", "earlier"), file("opt/entry", "later").mode(0o640),
		file("opt/file-to-dir", "file"), dir("opt/file-to-dir", 0o700),
		dir("opt/dir-to-file", 0o700), file("opt/dir-to-file/lost", "lost"), file("opt/dir-to-file", "file"),
		file("opt/file-to-link", "file"), symlink("opt/file-to-link", "entry"),
	))
}

// withoutZstd gives the same layers to tools that do not know zstd.
func withoutZstd(t testing.TB, layers []blobLayer) []blobLayer {
	out := append([]blobLayer(nil), layers...)
	for i := range out {
		if detect(out[i].blob, out[i].mediaType) == zstandard {
			out[i] = gzipLayer(t, unzstd(t, out[i].blob))
		}
	}
	return out
}

// umociUnpack unpacks an image with umoci and returns it as a tree.
func umociUnpack(t *testing.T, ref Ref) *Tree {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle")
	run(t, "umoci", "unpack", "--image", ref.Name, bundle)
	return mustImport(t, Ref{TransportRootfs, filepath.Join(bundle, "rootfs")})
}

func TestMergedTreeEqualsUmoci(t *testing.T) {
	layers := append(richLayers(t), repeats(t))
	ours := mustImport(t, layoutOf(t, layers...))
	theirs := umociUnpack(t, layoutOf(t, withoutZstd(t, layers)...))
	sameLines(t, "merged tree", describe(ours.Root), describe(theirs.Root))
	if files, dirs, symlinks, bytes := ours.Stats(); files < 15 || dirs < 15 || symlinks < 3 || bytes < 600_000 {
		t.Errorf("too little was compared: %d files, %d directories, %d links, %d bytes", files, dirs, symlinks, bytes)
	}
}

func TestRootfsEqualsImage(t *testing.T) {
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "etc/conf.d"), 0o750))
	must(t, os.MkdirAll(filepath.Join(root, "run/lock"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "usr/bin/tool"), []byte("tool"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/conf.d/large"), make([]byte, 1<<20), 0o600))
	must(t, os.Link(filepath.Join(root, "usr/bin/tool"), filepath.Join(root, "usr/bin/tool2")))
	must(t, os.Symlink("tool", filepath.Join(root, "usr/bin/link")))
	run(t, "setfattr", "-n", "user.test", "-v", "value", filepath.Join(root, "usr/bin/tool"))

	fromDir := mustImport(t, Ref{TransportRootfs, root})
	archive := run(t, "tar", "-C", root, "--xattrs", "--xattrs-include=*", "--format=pax", "--numeric-owner", "-c", ".")
	fromTar := mustImport(t, layoutOf(t, plainLayer([]byte(archive))))
	sameLines(t, "rootfs", describe(fromDir.Root), describe(fromTar.Root))
	if fromDir.Dropped["run"] != 1 || fromTar.Dropped["run"] != 1 {
		t.Errorf("dropped: %v and %v, expected one below run", fromDir.Dropped, fromTar.Dropped)
	}
	if n := fromDir.Lookup("usr/bin/tool"); n == nil || n != fromDir.Lookup("usr/bin/tool2") || len(n.Xattrs) != 1 {
		t.Errorf("hard link or attribute lost: %+v", n)
	}
	if fromDir.Lookup("etc") != nil || fromDir.Lookup("usr/etc/conf.d/large") == nil {
		t.Error("/etc did not move to /usr/etc")
	}
}
