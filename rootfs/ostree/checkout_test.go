package ostree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTooManyLinks: where one inode cannot have as many names as a directory asks for, ext4's limit
// being 65,000, the rest are copies.
func TestTooManyLinks(t *testing.T) {
	const names = 65010
	base := t.TempDir()
	dir := base + "/mnt"
	mustMkdir(t, dir)
	run(t, "truncate", "-s", "128M", base+"/img")
	run(t, "mkfs.ext4", "-q", base+"/img")
	run(t, "mount", "-o", "loop", base+"/img", dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	repo := createRepoIn(t, dir)
	file := store(t, repo, 0o104711, "content")
	var tree DirTree
	for i := range names {
		tree.Files = append(tree.Files, FileEntry{fmt.Sprintf("%05d", i), file})
	}
	if err := repo.Checkout(t.Context(), commitOf(t, repo, tree), repo.root, "out", CheckoutOptions{}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir + "/out")
	if err != nil || len(entries) != names {
		t.Fatalf("%d names (%v)", len(entries), err)
	}
	var first, last unix.Stat_t
	if err := errors.Join(unix.Stat(dir+"/out/00000", &first), unix.Stat(dir+"/out/65009", &last)); err != nil {
		t.Fatal(err)
	}
	if first.Nlink != 65000 || last.Nlink != 1 {
		t.Errorf("link counts %d and %d, want 65000 and 1", first.Nlink, last.Nlink)
	}
	if first.Mode != last.Mode || first.Size != last.Size || last.Mtim != first.Mtim {
		t.Errorf("the copy differs: %+v, %+v", first, last)
	}
}

func commitOf(t testing.TB, repo *testRepo, tree DirTree) Checksum {
	t.Helper()
	meta, err := repo.WriteDirMeta(DirMeta{Mode: 0o40755})
	if err != nil {
		t.Fatal(err)
	}
	top, err := repo.WriteDirTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := repo.WriteCommit(Commit{Tree: top, Meta: meta})
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

// TestDeepCheckout: a path of 2,000 directories needs neither the path as a whole nor a descriptor
// for each.
func TestDeepCheckout(t *testing.T) {
	const depth = 2000
	repo := createRepo(t)
	var tree DirTree
	for range depth {
		sub, err := repo.WriteDirTree(tree)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := repo.WriteDirMeta(DirMeta{Mode: 0o41750, UID: 5})
		if err != nil {
			t.Fatal(err)
		}
		tree = DirTree{Dirs: []DirEntry{{"d", sub, meta}}}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 400, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err := repo.Checkout(t.Context(), commitOf(t, repo, tree), repo.root, "out", CheckoutOptions{})
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	got := run(t, "sh", "-c", "cd "+repo.dir+"/out && find . -uid 5 -perm 1750 -printf '%T@\n' | sort | uniq -c")
	if want := fmt.Sprintf("%d 0.0000000000", depth); got != want {
		t.Errorf("directories: %s, want %s", got, want)
	}
}

func TestCheckoutRefuses(t *testing.T) {
	repo := createRepo(t)
	empty, err := repo.WriteDirTree(DirTree{})
	if err != nil {
		t.Fatal(err)
	}
	file := store(t, repo, 0o100644, "x")
	meta := Checksum{}
	good := commitOf(t, repo, DirTree{Files: []FileEntry{{"f", file}}})
	c, err := repo.LoadCommit(good)
	if err != nil {
		t.Fatal(err)
	}
	meta = c.Meta
	many := DirTree{}
	for i := range 200 {
		many.Dirs = append(many.Dirs, DirEntry{fmt.Sprint(i), empty, meta})
	}
	many.Dirs[150].Tree = Checksum{0xab} // missing, found while others are under way
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	mustMkdir(t, repo.dir+"/taken")
	for _, c := range []struct {
		what, name string
		ctx        context.Context
		commit     Checksum
		options    CheckoutOptions
		want       error
	}{
		{"no commit", "a", t.Context(), Checksum{7}, CheckoutOptions{}, ErrNotFound},
		{"no file", "b", t.Context(), commitOf(t, repo, DirTree{Files: []FileEntry{{"f", Checksum{3}}}}), CheckoutOptions{}, ErrNotFound},
		{"no file to copy", "c", t.Context(), commitOf(t, repo, DirTree{Files: []FileEntry{{"f", Checksum{3}}}}), CheckoutOptions{ForceCopy: true}, ErrNotFound},
		{"no subdirectory", "d", t.Context(), commitOf(t, repo, many), CheckoutOptions{}, ErrNotFound},
		{"no metadata", "e", t.Context(), commitOf(t, repo, DirTree{Dirs: []DirEntry{{"d", empty, Checksum{4}}}}), CheckoutOptions{}, ErrNotFound},
		{"no subpath", "f", t.Context(), good, CheckoutOptions{Subpath: "usr/etc"}, ErrNotFound},
		{"subpath is a file", "g", t.Context(), good, CheckoutOptions{Subpath: "f"}, ErrNotFound},
		{"name is taken", "taken", t.Context(), good, CheckoutOptions{}, os.ErrExist},
		{"name is a path", "a/b", t.Context(), good, CheckoutOptions{}, ErrCorrupt},
		{"name is above", "..", t.Context(), good, CheckoutOptions{}, ErrCorrupt},
		{"cancelled", "h", cancelled, commitOf(t, repo, many), CheckoutOptions{}, context.Canceled},
	} {
		if err := repo.Checkout(c.ctx, c.commit, repo.root, c.name, c.options); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		for _, fd := range descriptors(t, repo.dir) {
			if !strings.HasPrefix(fd, repo.path) {
				t.Errorf("%s: descriptor left on %s", c.what, fd)
			}
		}
	}
}

// TestQuotedWhiteouts compares the devices of a checkout with those that ostree makes.
func TestQuotedWhiteouts(t *testing.T) {
	repo := createRepo(t)
	write := func(h FileHeader) Checksum {
		sum, err := repo.WriteContent(t.Context(), h, 0, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	plain := write(FileHeader{Mode: 0o100644})
	commit := commitOf(t, repo, DirTree{Files: []FileEntry{
		{".ostree-wh.", plain}, {".ostree-wh.link", write(FileHeader{Mode: 0o120777, Target: "x"})}, {".ostree-wh.plain", plain},
		{".ostree-wh.rich", write(FileHeader{Mode: 0o104751, UID: 3, GID: 4, Xattrs: []Xattr{{Name: "security.lab", Value: []byte("x")}}})}, {"file", plain},
	}})
	list := func(dir string) string {
		return run(t, "sh", "-c", `cd "$1" && find . -mindepth 1 -printf '%P %y %m %U:%G %l\n' | sort && stat -c '%n %t:%T' plain rich && getfattr -dm- rich`, "sh", dir)
	}
	if err := repo.Checkout(t.Context(), commit, repo.root, "ours", CheckoutOptions{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	if err := repo.Checkout(t.Context(), commit, repo.root, "files", CheckoutOptions{}); err != nil {
		t.Fatal(err)
	}
	// ostree refuses the name that quotes nothing; the directory keeps it as a file.
	ours, root := list(repo.root.Name()+"/ours"), repo.root.Name()
	if !strings.Contains(ours, ".ostree-wh. f 644 0:0") {
		t.Errorf("a file that quotes no name is no file:\n%s", ours)
	}
	again := strings.TrimSpace(run(t, "sh", "-euc", `rm "$1/files/.ostree-wh."; ostree commit --repo="$1/ostree/repo" --orphan --tree=dir="$1/files"`, "sh", root))
	run(t, "ostree", "checkout", "--repo="+root+"/ostree/repo", "--process-passthrough-whiteouts", again, root+"/theirs")
	if theirs := list(root + "/theirs"); strings.Replace(ours, ".ostree-wh. f 644 0:0 \n", "", 1) != theirs {
		t.Errorf("ours:\n%s\nostree's:\n%s", ours, theirs)
	}
}
