package ostree

import (
	"context"
	"errors"
	"os"
	"testing"
)

// TestFsckFinds: each kind of damage is reported, with the object's name.
func TestFsckFinds(t *testing.T) {
	damage := func(what string, typ ObjectType, do func(repo *testRepo, path string), want error) {
		t.Helper()
		repo := createRepo(t)
		dir := t.TempDir()
		mustMkdir(t, dir+"/usr")
		if err := errors.Join(os.WriteFile(dir+"/usr/file", []byte("content"), 0o644), os.Symlink("file", dir+"/usr/link")); err != nil {
			t.Fatal(err)
		}
		commit := nativeCommit(t, repo.Repo, dir)
		if err := repo.Fsck(t.Context()); err != nil {
			t.Fatalf("%s: before: %v", what, err)
		}
		sum := map[ObjectType]Checksum{TypeCommit: commit}
		c, _ := repo.LoadCommit(commit)
		top, _ := repo.LoadDirTree(c.Tree)
		usr, _ := repo.LoadDirTree(top.Dirs[0].Tree)
		sum[TypeDirTree], sum[TypeDirMeta], sum[TypeFile] = top.Dirs[0].Tree, c.Meta, usr.Files[0].Checksum
		do(repo, repo.dir+"/"+objectKey{sum[typ], typ}.ledgerName())
		err := repo.Fsck(t.Context())
		var about *ObjectError
		if !errors.Is(err, want) || !errors.As(err, &about) || about.Type != typ || about.Checksum != sum[typ] {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := tryRun("ostree", "--repo="+repo.path, "fsck"); err == nil {
			t.Errorf("%s: the ostree command sees no damage, the test is wrong", what)
		}
	}
	shell := func(script string) func(*testRepo, string) {
		return func(_ *testRepo, path string) { run(t, "sh", "-c", script, "sh", path) }
	}
	damage("file gone", TypeFile, shell(`rm "$1"`), ErrNotFound)
	damage("file longer", TypeFile, shell(`echo >> "$1"`), ErrCorrupt)
	damage("file mode", TypeFile, shell(`chmod 600 "$1"`), ErrCorrupt)
	damage("file owner", TypeFile, shell(`chown 1 "$1"`), ErrCorrupt)
	damage("file attribute", TypeFile, shell(`setfattr -n user.x -v y "$1"`), ErrCorrupt)
	damage("file is a link", TypeFile, shell(`rm "$1"; ln -s x "$1"`), ErrCorrupt)
	damage("dirtree gone", TypeDirTree, shell(`rm "$1"`), ErrNotFound)
	damage("dirtree changed", TypeDirTree, shell(`printf '\0' > "$1"`), ErrCorrupt)
	damage("dirmeta cut", TypeDirMeta, shell(`truncate -s 8 "$1"`), ErrCorrupt)
	damage("commit gone", TypeCommit, shell(`rm "$1"`), ErrNotFound)
	damage("commit changed", TypeCommit, shell(`sed -i s/subject/subjekt/ "$1"`), ErrCorrupt)
}

// TestFsckRefs: a ref that is no checksum is damage too, and a missing parent is not.
func TestFsckRefs(t *testing.T) {
	repo := createRepo(t)
	commit := nativeCommit(t, repo.Repo, t.TempDir())
	c, err := repo.LoadCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	c.Parent = Checksum{5}
	child, err := repo.WriteCommit(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(repo.SetRef("child", child), repo.Fsck(t.Context())); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(repo.path+"/refs/mirrors/broken", []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := repo.Fsck(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("broken ref: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := repo.Fsck(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
