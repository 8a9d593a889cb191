package ostree

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// bigTree stores a directory whose object is larger than the limit for reading.
func bigTree(t testing.TB, repo *testRepo) Checksum {
	t.Helper()
	var tree DirTree
	for i := range 400 {
		tree.Files = append(tree.Files, FileEntry{fmt.Sprintf("name-%d", i), Checksum{1}})
	}
	sum, err := repo.WriteDirTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func mapped(t testing.TB, repo *testRepo) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(maps), repo.path+"/objects/")
}

// TestMappedObject: a large object is a mapping without a descriptor; it is in the kernel's list
// and in the ledger until it is closed, also when the repository is closed first.
func TestMappedObject(t *testing.T) {
	repo := createRepo(t)
	c := bigTree(t, repo)
	o, err := repo.Load(TypeDirTree, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"map ostree/repo/objects/" + c.String()[:2] + "/" + c.String()[2:] + ".dirtree x1"}
	sameLines(t, "ledger", repo.ledger.list(), want)
	if !mapped(t, repo) {
		t.Error("the object is not mapped")
	}
	data, err := o.Bytes()
	if err != nil || Checksum(sha256.Sum256(data)) != c {
		t.Errorf("bytes differ (%v)", err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if mapped(t, repo) {
		t.Error("still mapped after Close")
	}
	if left := repo.ledger.list(); len(left) > 0 {
		t.Errorf("still in the ledger: %v", left)
	}
	if data, err := o.Bytes(); data != nil || !errors.Is(err, ErrClosed) {
		t.Errorf("Bytes after Close: %v, %v", data, err)
	}
	if err := o.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestSmallObject(t *testing.T) {
	repo := createRepo(t)
	c, err := repo.WriteDirTree(DirTree{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := repo.Load(TypeDirTree, c)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := o.Bytes(); !bytes.Equal(data, []byte{0}) || err != nil || mapped(t, repo) {
		t.Errorf("%x, %v, mapped %v", data, err, mapped(t, repo))
	}
	if list := strings.Join(repo.ledger.list(), "\n"); !strings.Contains(list, "object ostree/repo/objects/6e/") {
		t.Errorf("not in the ledger: %s", list)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// TestWithObject: the handle ends with the call, also when the call fails.
func TestWithObject(t *testing.T) {
	repo := createRepo(t)
	c := bigTree(t, repo)
	err := repo.WithObject(TypeDirTree, c, func([]byte) error {
		if !mapped(t, repo) {
			t.Error("not mapped during the call")
		}
		return errBroken
	})
	var about *ObjectError
	if !errors.Is(err, errBroken) || !errors.As(err, &about) || about.Checksum != c || about.Type != TypeDirTree {
		t.Errorf("error %v", err)
	}
	if mapped(t, repo) {
		t.Error("still mapped after the call")
	}
	tree, err := repo.LoadDirTree(c)
	if err != nil || len(tree.Files) != 400 || tree.Files[0].Name != "name-0" || mapped(t, repo) {
		t.Errorf("%d files, %v", len(tree.Files), err)
	}
}

func TestLoadRefuses(t *testing.T) {
	repo := createRepo(t)
	missing := Checksum{0xfe, 1}
	for _, typ := range []ObjectType{TypeCommit, TypeDirTree, TypeDirMeta, TypeCommitMeta} {
		if _, err := repo.Load(typ, missing); !errors.Is(err, ErrNotFound) {
			t.Errorf("missing %s: %v", typ, err)
		}
	}
	if err := repo.ReadContent(missing, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing file: %v", err)
	}
	file := store(t, repo, 0o100644, "x")
	if _, err := repo.Load(TypeFile, file); err == nil {
		t.Error("a file can be loaded as metadata")
	}
	// In the place of an object: a fifo must not block, a link not be followed.
	tree, err := repo.WriteDirTree(DirTree{})
	if err != nil {
		t.Fatal(err)
	}
	path := repo.dir + "/" + objectKey{tree, TypeDirTree}.ledgerName()
	run(t, "rm", path)
	run(t, "mkfifo", path)
	if _, err := repo.Load(TypeDirTree, tree); !errors.Is(err, ErrCorrupt) {
		t.Errorf("fifo: %v", err)
	}
	run(t, "rm", path)
	if err := os.Symlink("/etc/hostname", path); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Load(TypeDirTree, tree); err == nil {
		t.Error("a symbolic link is followed")
	}
}

func TestRefs(t *testing.T) {
	repo := createRepo(t)
	c := nativeCommit(t, repo.Repo, t.TempDir())
	other, err := repo.WriteCommit(Commit{Tree: Checksum{1}})
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, c Checksum) {
		t.Helper()
		if err := repo.SetRef(name, c); err != nil {
			t.Error(err)
		}
	}
	blob := "ostree/container/blob/sha256_3A_abc"
	set(blob, other)
	set("plain", other)
	set("plain", c)
	set("origin:os/x86_64/main", c)
	got := strings.Fields(run(t, "ostree", "--repo="+repo.path, "refs", "-c", "--list"))
	if len(got) != 0 {
		t.Errorf("collection refs appear from nowhere: %v", got)
	}
	sameLines(t, "refs", refNames(t, repo), []string{"native/test " + c.String(), "origin:os/x86_64/main " + c.String(), blob + " " + other.String(), "plain " + c.String()})
	for _, name := range []string{blob, "plain", "origin:os/x86_64/main"} {
		got, err := repo.ResolveRef(name)
		if err != nil || got.String() != run(t, "ostree", "--repo="+repo.path, "rev-parse", name) {
			t.Errorf("ref %s: %s, %v", name, got, err)
		}
	}
	st, err := os.Stat(repo.path + "/refs/heads/plain")
	if err != nil || st.Mode() != 0o644 || st.Size() != 65 {
		t.Errorf("ref's file: %v, %v", st.Mode(), err)
	}
	if err := repo.DeleteRef("plain"); err != nil {
		t.Error(err)
	}
	if _, err := repo.ResolveRef("plain"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted ref: %v", err)
	}
	if err := repo.DeleteRef("plain"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
}

func refNames(t testing.TB, repo *testRepo) []string {
	t.Helper()
	refs, err := repo.ListRefs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range refs {
		out = append(out, r.Name+" "+r.Commit.String())
	}
	return out
}

// TestRefNames: this package allows exactly the names that the command does.
func TestRefNames(t *testing.T) {
	repo := createRepo(t)
	c := nativeCommit(t, repo.Repo, t.TempDir())
	for _, name := range []string{"a", "a.b-c_d", "_x", "-x", ".x", "a//b", "a/", "/a", "a b", "ä/日本", "a/../b", "a/-b", strings.Repeat("a", 64), "", "9", "a\nb", "x/y/z", "a\xff"} {
		err := repo.SetRef("n/"+name, c)
		native := err == nil
		_, oracle := tryRun("ostree", "--repo="+repo.path, "refs", "--create=o/"+name, c.String())
		if native != (oracle == nil) {
			t.Errorf("name %q: native error %v, ostree's %v", name, err, oracle)
		}
	}
	if err := repo.SetRef(c.String(), c); err == nil {
		t.Error("a checksum is taken as a ref's name")
	}
	if err := repo.SetRef("missing", Checksum{9}); !errors.Is(err, ErrNotFound) {
		t.Errorf("ref to nothing: %v", err)
	}
	if err := repo.SetRef("native", c); err == nil {
		t.Error("a ref takes the place of a folder of refs")
	}
	if err := repo.SetRef("native/test/below", c); err == nil {
		t.Error("a ref is made beneath a ref")
	}
}

// TestRefAlias: links between refs are followed, not those that lead outside.
func TestRefAlias(t *testing.T) {
	repo := createRepo(t)
	c := nativeCommit(t, repo.Repo, t.TempDir())
	run(t, "ostree", "--repo="+repo.path, "refs", "--alias", "--create=alias", "native/test")
	if got, err := repo.ResolveRef("alias"); err != nil || got != c {
		t.Errorf("alias: %s, %v", got, err)
	}
	if err := os.WriteFile(repo.dir+"/outside", []byte(c.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"rel": "../../../../outside", "abs": repo.dir + "/outside"} {
		if err := os.Symlink(target, repo.path+"/refs/heads/"+name); err != nil {
			t.Fatal(err)
		}
		if got, err := repo.ResolveRef(name); err == nil {
			t.Errorf("a link to %s resolves to %s", target, got)
		}
	}
}

// TestRefsTouchRepository: other programs see by the directory's time that refs have changed.
func TestRefsTouchRepository(t *testing.T) {
	repo := createRepo(t)
	c := nativeCommit(t, repo.Repo, t.TempDir())
	old := time.Unix(1000, 0)
	for what, change := range map[string]func() error{
		"set":    func() error { return repo.SetRef("native/test", c) },
		"delete": func() error { return repo.DeleteRef("native/test") },
	} {
		if err := os.Chtimes(repo.path, old, old); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(what, err)
		}
		if st, err := os.Stat(repo.path); err != nil || st.ModTime().Equal(old) {
			t.Errorf("%s leaves the time %v (%v)", what, st.ModTime(), err)
		}
		if err := repo.SetRef("native/test", c); err != nil {
			t.Fatal(err)
		}
	}
}
