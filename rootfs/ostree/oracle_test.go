package ostree

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

const testTime = 1700000000

// ostreeCommit commits a directory with the ostree command into a repository of its own and returns
// the repository's path and the commit.
func ostreeCommit(t testing.TB, dir string, extra ...string) (string, string) {
	t.Helper()
	repo := t.TempDir() + "/repo"
	run(t, "ostree", "--repo="+repo, "init", "--mode=bare")
	run(t, "ostree", "--repo="+repo, "config", "set", "core.fsync", "false")
	return repo, ostreeCommitTo(t, repo, dir, extra...)
}

func ostreeCommitTo(t testing.TB, repo, dir string, extra ...string) string {
	t.Helper()
	argv := []string{"ostree", "--repo=" + repo, "commit", "-b", "oracle", "-s", "subject", "-m", "body", "--no-bindings", "--parent=none",
		fmt.Sprintf("--timestamp=@%d", testTime), "--add-metadata-string=version=1"}
	return run(t, append(append(argv, extra...), dir)...)
}

// nativeCommit commits the same directory with this package.
func nativeCommit(t testing.TB, r *Repo, dir string) Checksum {
	t.Helper()
	tree, meta := importTree(t, r, dir)
	sum, err := r.WriteCommit(Commit{
		Metadata: []KeyValue{{"version", StringValue("1")}},
		Subject:  "subject", Body: "body", Timestamp: testTime, Tree: tree, Meta: meta,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetRef("native/test", sum); err != nil {
		t.Fatal(err)
	}
	return sum
}

func objectNames(t testing.TB, repo string) []string {
	t.Helper()
	names, err := filepath.Glob(repo + "/objects/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], repo)
	}
	sort.Strings(names)
	return names
}

// TestCommitMatchesOstree: random trees get the checksum, and the very objects, that the ostree
// command gives them, in a new repository and in one that the command made.
func TestCommitMatchesOstree(t *testing.T) {
	for seed := int64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := makeTree(t, seed)
			oracle, want := ostreeCommit(t, dir)
			repo := createRepo(t)
			if seed%2 == 0 {
				repo = openRepo(t)
			}
			if got := nativeCommit(t, repo.Repo, dir); got.String() != want {
				t.Fatalf("commit %s, ostree makes %s", got, want)
			}
			run(t, "ostree", "--repo="+repo.path, "fsck")
			sameLines(t, "object list", objectNames(t, repo.path), objectNames(t, oracle))
			sameLines(t, "objects", inventory(t, repo.path+"/objects", false), inventory(t, oracle+"/objects", false))
			got := run(t, "ostree", "--repo="+repo.path, "ls", "-R", "-C", "-X", "native/test")
			sameLines(t, "ls", strings.Split(got, "\n"), strings.Split(run(t, "ostree", "--repo="+oracle, "ls", "-R", "-C", "-X", "oracle"), "\n"))
			if v := run(t, "ostree", "--repo="+repo.path, "show", "--print-metadata-key=version", "native/test"); v != "'1'" {
				t.Errorf("metadata key prints as %s", v)
			}
			if err := repo.Fsck(t.Context()); err != nil {
				t.Errorf("native fsck: %v", err)
			}
		})
	}
}

// TestCheckoutMatchesOstree: checkouts of one commit by the command and by this package are equal,
// links and copies alike.
func TestCheckoutMatchesOstree(t *testing.T) {
	dir := makeTree(t, 77)
	repo := createRepo(t)
	commit := nativeCommit(t, repo.Repo, dir)
	out := t.TempDir()
	dest := openRoot(t, out)
	check := func(what string, o CheckoutOptions, argv ...string) {
		t.Helper()
		native, oracle := strings.ReplaceAll(what, " ", "-")+"-native", what+"-oracle"
		if err := repo.Checkout(t.Context(), commit, dest, native, o); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		argv = append([]string{"ostree", "--repo=" + repo.path, "checkout"}, argv...)
		run(t, append(argv, commit.String(), out+"/"+oracle)...)
		times := !o.ForceCopy
		sameLines(t, what, inventory(t, out+"/"+native, times), inventory(t, out+"/"+oracle, times))
		sameLines(t, what+" links", linkCounts(t, out+"/"+native), linkCounts(t, out+"/"+oracle))
	}
	check("hard links", CheckoutOptions{})
	check("one worker", CheckoutOptions{Workers: 1})
	check("subpath", CheckoutOptions{Subpath: "/usr/etc"}, "--subpath=/usr/etc")
	check("copies", CheckoutOptions{ForceCopy: true}, "-C")
	check("copied subpath", CheckoutOptions{ForceCopy: true, Subpath: "usr/etc"}, "-C", "--subpath=/usr/etc")
}

// linkCounts returns whether each file has one name or more.
func linkCounts(t testing.TB, dir string) []string {
	t.Helper()
	return strings.Split(run(t, "find", dir, "-type", "d", "-o", "-links", "1", "-printf", "%P alone\n", "-o", "-printf", "%P linked\n"), "\n")
}

// TestOffsetWidths: directories and metadata whose containers cross the limits of one-byte and
// two-byte offsets get the command's checksum.
func TestOffsetWidths(t *testing.T) {
	repo := createRepo(t)
	oracle, _ := ostreeCommit(t, t.TempDir())
	rnd := rand.New(rand.NewSource(5))
	sizes := []int{1, 2, 3, 4, 5, 6, 7, 8, 940, 941, 942}
	for _, n := range sizes {
		dir := t.TempDir()
		for i := range n {
			pad := strings.Repeat("n", rnd.Intn(12))
			if err := os.Symlink("x", fmt.Sprintf("%s/%04d%s", dir, i, pad)); err != nil {
				t.Fatal(err)
			}
			if i < 3 && n < 20 {
				mustMkdir(t, fmt.Sprintf("%s/d%d%s", dir, i, pad))
			}
		}
		want := ostreeCommitTo(t, oracle, dir)
		if got := nativeCommit(t, repo.Repo, dir); got.String() != want {
			t.Errorf("%d entries: commit %s, ostree makes %s", n, got, want)
		}
	}
}

// TestMetadataWidths varies the length of commit metadata around the limits.
func TestMetadataWidths(t *testing.T) {
	dir := t.TempDir()
	repo := createRepo(t)
	oracle, _ := ostreeCommit(t, dir)
	tree, meta := importTree(t, repo.Repo, dir)
	for _, n := range []int{0, 118, 119, 120, 121, 239, 240, 241, 256, 65380, 65400, 65510, 65520, 65530} {
		text := strings.Repeat("m", n)
		want := run(t, "ostree", "--repo="+oracle, "commit", "-b", "m", "--no-bindings", "--parent=none", "-s", "", fmt.Sprintf("--timestamp=@%d", testTime),
			"--add-metadata-string=k="+text, "--add-metadata=n=uint32 7", "--add-metadata=t=uint64 8", "--add-metadata=b=true",
			"--add-metadata=l=['x', '', 'yz']", "--add-metadata=y=[byte 1, 2]", "--add-metadata=yy=[[byte 1], [byte 2, 3]]", dir)
		c := Commit{Timestamp: testTime, Tree: tree, Meta: meta, Metadata: []KeyValue{
			{"k", StringValue(text)}, {"n", Uint32Value(7)}, {"t", Uint64Value(8)}, {"b", BoolValue(true)},
			{"l", StringsValue([]string{"x", "", "yz"})}, {"y", BytesValue([]byte{1, 2})}, {"yy", BlobsValue([][]byte{{1}, {2, 3}})},
		}}
		got, err := repo.WriteCommit(c)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("metadata of %d bytes: commit %s, ostree makes %s", n, got, want)
		}
	}
}
