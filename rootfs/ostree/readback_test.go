package ostree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/rootfs/xattr"
)

// inheritable is a default access control list.
func inheritable() Xattr {
	return aclAttr(xattr.ACLDefault, aclEntry{owner, 7, noOne}, aclEntry{user, 7, 1000}, aclEntry{owningGroup, 5, noOne}, aclEntry{mask, 7, noOne}, aclEntry{others, 5, noOne})
}

// A root whose directories would hand their attributes and group on does not change the objects.
func TestRootThatHandsAttributesOn(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			dir := mountImage(t, fs)
			x := inheritable()
			err := errors.Join(os.Chown(dir, 0, 5), unix.Chmod(dir, 0o2755), unix.Setxattr(dir, x.Name, x.Value, 0))
			if fs == "btrfs" {
				err = errors.Join(err, unix.Setxattr(dir, "btrfs.compression", []byte("zstd"), 0))
			}
			if err != nil {
				t.Fatal(err)
			}
			repo := createRepoIn(t, dir)
			commit := commitOddFiles(t, repo)
			if err := repo.SetRef("test", commit); err != nil {
				t.Fatal(err)
			}
			if err := repo.Checkout(t.Context(), commit, repo.root, "deployment", CheckoutOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := repo.ReadBack(t.Context()); err != nil {
				t.Error(err)
			}
			run(t, "ostree", "fsck", "--repo="+repo.path)
			for _, name := range []string{repo.path, filepath.Join(repo.path, "objects"), filepath.Join(dir, "deployment")} {
				if h := headerOf(t, name); h.GID != 0 || h.Mode != modeDirectory|0o755 || len(h.Xattrs) > 0 {
					t.Errorf("%s: %+v", name, h)
				}
			}
		})
	}
}

// commitOddFiles commits a directory of one file of each shape.
func commitOddFiles(t *testing.T, repo *testRepo) Checksum {
	t.Helper()
	files := oddFiles()
	files["zero"] = FileHeader{Mode: modeRegular | 0o644}
	files["large"] = FileHeader{Mode: modeRegular | 0o644, UID: 5}
	var tree DirTree
	for _, name := range sortedKeys(files) {
		h, content := files[name], bytes.Repeat([]byte(name), 3<<20/len(name))
		if name != "large" {
			content = []byte(name)
		}
		if name == "zero" || h.IsSymlink() {
			content = nil
		}
		sum, err := repo.WriteContent(t.Context(), h, int64(len(content)), bytes.NewReader(content))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tree.Files = append(tree.Files, FileEntry{Name: name, Checksum: sum})
	}
	sum, err := repo.WriteDirTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := repo.WriteDirMeta(DirMeta{Mode: modeDirectory | 0o755})
	if err != nil {
		t.Fatal(err)
	}
	commit, err := repo.WriteCommit(Commit{Tree: sum, Meta: meta})
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

func sortedKeys(m map[string]FileHeader) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	for i := range names {
		for j := i + 1; j < len(names); j++ {
			if names[j] < names[i] {
				names[i], names[j] = names[j], names[i]
			}
		}
	}
	return names
}

// The first object of a shape whose file has an attribute that was not written ends the import.
func TestAttributesThatAppear(t *testing.T) {
	for name, h := range map[string]FileHeader{
		"plain":      {Mode: modeRegular | 0o644},
		"attributes": {Mode: modeRegular | 0o644, Xattrs: []Xattr{{Name: "user.a", Value: []byte("1")}}},
		"capability": {Mode: modeRegular | 0o755, Xattrs: []Xattr{capability3()}},
	} {
		for _, size := range []int{0, 5, 2 << 20, readBackMost + 1} {
			repo := createRepoIn(t, mountImage(t, "ext4"))
			x := inheritable()
			for i := range 256 {
				at, err := repo.objects.prefixDir(byte(i), true)
				if err == nil {
					err = unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", at), x.Name, x.Value, 0)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Setxattr(repo.path+"/tmp", x.Name, x.Value, 0); err != nil {
				t.Fatal(err)
			}
			_, err := repo.WriteContent(t.Context(), h, int64(size), io.LimitReader(zeros{}, int64(size)))
			var found *ReadBackError
			if !errors.As(err, &found) || found.Attr != xattr.ACLAccess || !found.Added || !strings.Contains(err.Error(), "setfacl -k") {
				t.Errorf("%s of %d bytes: %v", name, size, err)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A label that appears between the import and the end of the deployment is found, and named.
func TestLabelsThatAppear(t *testing.T) {
	repo := createRepo(t)
	commit := commitOddFiles(t, repo)
	tree, err := repo.LoadCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	list, err := repo.LoadDirTree(tree.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list.Files {
		path := objectPath(repo, f.Checksum)
		if err := unix.Lsetxattr(path, xattr.SELinux, []byte("system_u:object_r:unlabeled_t:s0\x00"), 0); err != nil {
			t.Fatal(err)
		}
		err := repo.Checkout(t.Context(), commit, repo.root, "with a label of "+f.Name, CheckoutOptions{})
		var found *ReadBackError
		if !errors.As(err, &found) || found.Attr != xattr.SELinux || !strings.Contains(err.Error(), "context=") {
			t.Errorf("%s: %v", f.Name, err)
		}
		if err := unix.Lremovexattr(path, xattr.SELinux); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Checkout(t.Context(), commit, repo.root, "without", CheckoutOptions{}); err != nil {
		t.Error(err)
	}
}

func TestDirectoryThatReadsBackDifferently(t *testing.T) {
	dir := t.TempDir()
	f := openRoot(t, dir)
	if err := unix.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	plain := DirMeta{Mode: modeDirectory | 0o755}
	if err := (&checkout{}).sampleDir(int(f.Fd()), "d", plain); err != nil {
		t.Error(err)
	}
	labelled := DirMeta{Mode: modeDirectory | 0o755, Xattrs: []Xattr{{Name: "user.a", Value: []byte("1")}}}
	for what, m := range map[string]DirMeta{"attribute": labelled, "owner": {Mode: plain.Mode, GID: 5}, "mode": {Mode: modeDirectory | 0o1755}} {
		if err := (&checkout{}).sampleDir(int(f.Fd()), "d", m); !errors.As(err, new(*ReadBackError)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := unix.Setxattr(dir, "security.ima", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := (&checkout{}).sampleDir(int(f.Fd()), "d", plain); err == nil || !strings.Contains(err.Error(), "security module") {
		t.Errorf("an attribute of a security module: %v", err)
	}
}

// Every file takes the blocks that its size needs: XFS keeps none behind the end.
func TestNoSpaceBehindTheEnd(t *testing.T) {
	dir := mountImage(t, "xfs")
	repo := createRepoIn(t, dir)
	for _, size := range []int64{1, 4097, smallContent, smallContent + 1, 3<<20 + 4096, reserveSize - 1, reserveSize + 1, 67_585_946} {
		if _, err := repo.WriteContent(t.Context(), FileHeader{Mode: modeRegular | 0o644}, size, io.LimitReader(ones{}, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Sync(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(repo.path, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if taken, most := st.Blocks*512, (st.Size+4095)/4096*4096; err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && taken > most {
			t.Errorf("a file of %d bytes takes %d", st.Size, taken)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", "find '"+repo.path+"' -size +1M -exec filefrag -v {} +").CombinedOutput(); err != nil || strings.Contains(string(out), "unwritten") {
		t.Errorf("%v\n%s", err, out)
	}
}

type ones struct{}

func (ones) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 1
	}
	return len(b), nil
}
