package image

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// byPath is a labeller that has a label for the paths below some directories, and none below others.
func byPath(path string, mode uint32) string {
	switch {
	case strings.HasPrefix(path, "/usr/none"):
		return ""
	case mode&modeType == modeDir:
		return "u:r:dir:s0"
	case path == "/usr/etc" || strings.HasPrefix(path, "/usr/etc/"):
		return "u:r:etc:s0"
	}
	return "u:r:" + strings.Split(path, "/")[1] + "_" + filepath.Base(filepath.Dir(path)) + ":s0"
}

// checkLabels compares the labels of a tree with those of its paths, and twins with their originals.
func checkLabels(t *testing.T, name string, root *Node) {
	t.Helper()
	err := root.Walk(func(path string, n *Node) error {
		if got, want := n.Label(), byPath("/"+path, n.Mode); got != want {
			t.Errorf("%s: /%s has the label %q, want %q", name, path, got, want)
		}
		if !slices.IsSortedFunc(n.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: the attributes of /%s are not in order: %v", name, path, n.Xattrs)
		}
		return nil
	})
	must(t, err)
}

// relabelLayers have stale labels, hard links between directories, whiteouts and /etc.
func relabelLayers(t testing.TB) [][]byte {
	return [][]byte{
		tarOf(t, file("usr/a/first", "shared").xattr("security.selinux", "stale").xattr("user.z", "1").xattr("a.b", "dropped"),
			hardlink("usr/b/second", "usr/a/first"), hardlink("usr/a/third", "usr/b/second"), hardlink("usr/none/fourth", "usr/a/first"),
			file("usr/none/sole", "bare"), hardlink("usr/a/of-none", "usr/none/sole"),
			file("usr/a/same", "twice"), file("usr/b/same", "twice"), file("usr/b/again", "twice"), symlink("usr/a/link", "x"),
			dir("etc", 0o755), file("etc/conf", "c"), file("usr/a/gone", "g"), file("usr/large/one", strings.Repeat("l", smallFile+1)),
			hardlink("usr/b/large", "usr/large/one")),
		tarOf(t, file("usr/a/.wh.gone", ""), file("etc/conf", "d"), hardlink("etc/more", "etc/conf")),
	}
}

func TestRelabel(t *testing.T) {
	eachCompression(t, relabelLayers(t), func(t *testing.T, ref Ref) {
		for _, scanned := range []bool{false, true} {
			name := fmt.Sprintf("scanned: %v", scanned)
			img, err := Open(t.Context(), ref, accept(t))
			must(t, err)
			defer img.Close()
			if scanned {
				_, err := img.Scan(t.Context(), ScanOptions{})
				must(t, err)
			}
			tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{Label: byPath})
			must(t, err)
			checkLabels(t, name, tree.Root)
			for _, l := range tree.Layers {
				checkLabels(t, name, l)
			}
			checkTwins(t, name, tree, 4)
		}
	})
}

// checkTwins requires that every file has either a content or the content of another one.
func checkTwins(t *testing.T, name string, tree *Tree, want int) {
	t.Helper()
	of := map[*Node]*Node{}
	for _, twin := range tree.Twins {
		of[twin.Node] = twin.Of
	}
	if len(of) != want {
		t.Errorf("%s: %d twins, want %d", name, len(of), want)
	}
	must(t, tree.Walk(func(path string, n *Node) error {
		if original := of[n]; n.IsDir() || n.Content != (ContentID{}) {
			return nil
		} else if original == nil || original.Content == (ContentID{}) || original.Size != n.Size || original.Mode != n.Mode {
			t.Errorf("%s: /%s has no content, and is no twin: %v", name, path, original)
		}
		return nil
	}))
}

// The labels of a directory tree are those of a layer with the same files.
func TestRelabelRootfs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"usr/a/first", "etc/conf"} {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "usr/b"), 0o755))
	must(t, os.Link(filepath.Join(dir, "usr/a/first"), filepath.Join(dir, "usr/b/second")))
	img, err := Open(t.Context(), Ref{TransportRootfs, dir}, accept(t))
	must(t, err)
	defer img.Close()
	_, err = img.Scan(t.Context(), ScanOptions{})
	must(t, err)
	tree, err := img.Import(t.Context(), &memorySink{}, ImportOptions{Label: byPath})
	must(t, err)
	checkLabels(t, "rootfs", tree.Root)
	checkTwins(t, "rootfs", tree, 1)
}

// An inventory counts files that differ by their labels alone, and finds their contents.
func TestRelabelInventory(t *testing.T) {
	eachCompression(t, relabelLayers(t), func(t *testing.T, ref Ref) {
		o := ScanOptions{Exact: true, Files: []string{"usr/b/second", "usr/*/third"}}
		o.Look = func(name string, _ uint32) func(io.Reader) (any, error) {
			return func(io.Reader) (any, error) { return "seen", nil }
		}
		inv, err := scanWith(t, ref, o)
		must(t, err)
		// first, sole, same, link, two of conf, gone, large, the whiteout
		if inv.Objects != 9 {
			t.Errorf("%d objects without labels", inv.Objects)
		}
		inv.Relabel(byPath, nil)
		if inv.Objects != 9+4+1 { // the twins, and the file that is there three times
			t.Errorf("%d objects with labels", inv.Objects)
		}
		for _, name := range []string{"usr/a/first", "usr/b/second", "usr/a/third"} {
			if text, err := inv.FS().ReadFile(name); string(text) != "shared" || err != nil || inv.Seen(name) != "seen" {
				t.Errorf("%s is %q, %v, %v", name, text, err, inv.Seen(name))
			}
		}
		counts, unlabelled := inv.Tree.Labels()
		if counts["u:r:usr_a:s0"] != 5 || counts[""] != 3 || unlabelled != "/usr/none" {
			t.Errorf("labels %v, %s is without", counts, unlabelled)
		}
	})
}
