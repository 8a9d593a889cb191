package erofs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// sampleTree is a directory with the usual files of an image: links of both kinds, long
// targets, many names, attributes, sizes around a block.
func sampleTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(root, 0o755))
	for _, dir := range []string{"usr/bin", "usr/share/many", "usr/lib/empty", "var"} {
		must(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 300 << 10} {
		must(os.WriteFile(filepath.Join(root, fmt.Sprintf("usr/bin/size%d", size)), []byte(strings.Repeat("x", size)), 0o755))
	}
	for n := range 700 {
		must(os.WriteFile(filepath.Join(root, fmt.Sprintf("usr/share/many/a-file-with-a-long-name-%d", n)), fmt.Append(nil, n), 0o600))
	}
	must(os.Link(filepath.Join(root, "usr/bin/size1"), filepath.Join(root, "usr/bin/link")))
	must(os.Symlink("usr/bin", filepath.Join(root, "bin")))
	must(os.Symlink(strings.Repeat("long/", 810)+"end", filepath.Join(root, "far")))
	must(os.Chown(filepath.Join(root, "usr/bin/size1"), 12, 345))
	must(unix.Setxattr(filepath.Join(root, "usr/bin/size4096"), "user.note", []byte("kept"), 0))
	must(unix.Setxattr(filepath.Join(root, "usr/bin"), "trusted.dir", []byte{0, 1, 2}, 0))
	return root
}

// write makes the image of a directory, and returns its path and the tree.
func write(t *testing.T, root string) (string, *image.Tree) {
	t.Helper()
	img, err := image.Open(t.Context(), image.Ref{Transport: image.TransportRootfs, Name: root}, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "tree.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := NewWriter(file)
	tree, err := img.Import(t.Context(), w, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	size, err := w.Finish(tree.Root)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != size || size%blockSize != 0 {
		t.Errorf("the file has %d bytes (%v), Finish said %d", info.Size(), err, size)
	}
	content, err := w.Content(tree.Lookup("usr/bin/size4097"))
	if err != nil || content.Size() != 4097 {
		t.Errorf("Content: %v, %v", content, err)
	}
	return file.Name(), tree
}

// Another program must extract the same tree: contents, modes, owners,
// targets. (This one makes a file of its own for each hard link, and loses
// set-user-ID; the kernel is asked about those below.)
func TestExtractedTreeIsTheSame(t *testing.T) {
	root := sampleTree(t)
	path, _ := write(t, root)
	out := filepath.Join(t.TempDir(), "out")
	if text, err := exec.Command("fsck.erofs", "--extract="+out, "--preserve", path).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, text)
	}
	if want, got := manifest(t, root, ""), manifest(t, out, ""); want != got {
		t.Errorf("extracted:\n%s\nwant:\n%s", firstDifference(got, want), firstDifference(want, got))
	}
}

// The kernel must read the file system, attributes included.
func TestKernelReadsTheImage(t *testing.T) {
	root := sampleTree(t)
	if err := os.Chmod(filepath.Join(root, "usr/bin/size4097"), 0o711|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	path, _ := write(t, root)
	at := t.TempDir()
	if text, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", path, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, text)
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	if want, got := manifest(t, root, "%n"), manifest(t, at, "%n"); want != got {
		t.Errorf("mounted:\n%s\nwant:\n%s", firstDifference(got, want), firstDifference(want, got))
	}
	for file, attr := range map[string][2]string{"usr/bin/size4096": {"user.note", "kept"}, "usr/bin": {"trusted.dir", "\x00\x01\x02"}} {
		value := make([]byte, 16)
		n, err := unix.Getxattr(filepath.Join(at, file), attr[0], value)
		if err != nil || string(value[:n]) != attr[1] {
			t.Errorf("%s of %s is %q, %v; want %q", attr[0], file, value[:max(n, 0)], err, attr[1])
		}
	}
}

func TestAttributeOfUnknownKindIsRefused(t *testing.T) {
	w := NewWriter(nil)
	root := &image.Node{Meta: image.Meta{Mode: unix.S_IFDIR | 0o755, Xattrs: []image.Xattr{{Name: "system.odd", Value: []byte("x")}}}, Children: map[string]*image.Node{}}
	if _, err := w.Finish(root); err == nil {
		t.Error("no error")
	}
}

func TestShortContentIsRefused(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := NewWriter(file).Store(context.Background(), image.Meta{}, "", 10, strings.NewReader("short")); err == nil {
		t.Error("no error")
	}
}

// manifest lists a tree with find and sha256sum, tools that know nothing of the
// format. it prints more for anything but a directory.
func manifest(t *testing.T, root, more string) string {
	t.Helper()
	const script = `{ find . -type d -printf '%p %y %m %U:%G\n'; find . ! -type d -printf "%p %y %m %U:%G $1 %l\n"; } | LC_ALL=C sort
		find . -type f | LC_ALL=C sort | xargs sha256sum`
	cmd := exec.Command("sh", "-c", script, "sh", more)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func firstDifference(a, b string) string {
	other := strings.Split(b, "\n")
	for n, line := range strings.Split(a, "\n") {
		if n >= len(other) || line != other[n] {
			return line
		}
	}
	return "(shorter)"
}
