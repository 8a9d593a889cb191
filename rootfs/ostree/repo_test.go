package ostree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCreateLayout: a new repository equals one of `ostree init`, whatever the umask, and the
// command takes it as its own.
func TestCreateLayout(t *testing.T) {
	old := unix.Umask(0o077)
	dir := t.TempDir()
	repo := createRepoIn(t, dir)
	unix.Umask(0o022)
	oracle := t.TempDir() + "/repo"
	run(t, "ostree", "--repo="+oracle, "init", "--mode=bare")
	unix.Umask(old)
	list := func(dir string) []string {
		return strings.Split(run(t, "sh", "-c", "cd "+dir+" && find . -printf '%m %y %u %g %p\n' | sort"), "\n")
	}
	sameLines(t, "layout", list(repo.path), list(oracle))
	if v := run(t, "ostree", "--repo="+repo.path, "config", "get", "sysroot.bootloader"); v != "none" {
		t.Errorf("bootloader reads as %q", v)
	}
	if v := run(t, "ostree", "--repo="+repo.path, "config", "get", "sysroot.bootprefix"); v != "true" {
		t.Errorf("bootprefix reads as %q", v)
	}
	again, err := Open(repo.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Config() != repo.Config() {
		t.Errorf("configuration reads back as %+v", again.Config())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestUmaskDoesNotMatter: modes of objects are those asked for.
func TestUmaskDoesNotMatter(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	repo := createRepo(t)
	unlock, err := repo.Lock(false)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if st, err := os.Stat(repo.path + "/.lock"); err != nil || st.Mode() != 0o640 {
		t.Errorf("lock file: %v (%v)", st.Mode(), err)
	}
	sum := store(t, repo, 0o106755, "x")
	st, err := os.Stat(objectPath(repo, sum))
	if err != nil || st.Mode() != 0o755|os.ModeSetuid|os.ModeSetgid {
		t.Errorf("mode %v (%v)", st.Mode(), err)
	}
	if err := repo.objects.verifyFile(t.Context(), sum); err != nil {
		t.Error(err)
	}
}

func store(t testing.TB, repo *testRepo, mode uint32, content string) Checksum {
	t.Helper()
	sum, err := repo.WriteContent(t.Context(), FileHeader{Mode: mode}, int64(len(content)), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func objectPath(repo *testRepo, c Checksum) string {
	return repo.dir + "/" + objectKey{c, TypeFile}.ledgerName()
}

func TestCreateAndOpenRefuse(t *testing.T) {
	repo := createRepo(t)
	if _, err := Create(repo.root, Config{}, repo.ledger); !errors.Is(err, ErrExists) {
		t.Errorf("second Create: %v", err)
	}
	if _, err := Create(openRoot(t, t.TempDir()), Config{Bootloader: "a\nb=c"}, nil); err == nil {
		t.Error("a boot loader's name with a newline is taken")
	}
	if _, err := Open(openRoot(t, t.TempDir()), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(repo.dir+"/ostree", elsewhere+"/ostree"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(openRoot(t, elsewhere), nil); err == nil {
		t.Error("a symbolic link to ostree is followed")
	}
	for _, text := range []string{
		"[core]\nmode=bare\n", "[core]\nrepo_version=2\n", "[core]\nrepo_version=1\nmode=archive\n", "[core]\nrepo_version=1\nparent=/x\n",
		"[core]\nrepo_version=1\ndisable-xattrs=true\n", "[core]\nrepo_version=1\n[ex-integrity]\nfsverity=perhaps\n",
		"[core]\nrepo_version=1\n[sysroot]\nreadonly=perhaps\n", "nonsense",
	} {
		if err := os.WriteFile(repo.path+"/config", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(repo.root, repo.ledger); err == nil {
			t.Errorf("configuration %q is taken", text)
		}
	}
}

// TestLargeContent: content above the limit for memory is streamed, its zeros left as holes, and
// comes back the same.
func TestLargeContent(t *testing.T) {
	data := make([]byte, 5<<20+123)
	rand.New(rand.NewSource(1)).Read(data[1<<20 : 2<<20])
	for what, repo := range map[string]*testRepo{"created": createRepo(t), "opened": openRepo(t)} {
		h := FileHeader{UID: 7, GID: 8, Mode: 0o104755, Xattrs: []Xattr{{Name: "user.z", Value: []byte("z")}, {Name: "security.capability", Value: capability}}}
		var sums [2]Checksum
		for i := range sums {
			var err error
			if sums[i], err = repo.WriteContent(t.Context(), h, int64(len(data)), struct{ io.Reader }{bytes.NewReader(data)}); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		got := ""
		err := repo.ReadContent(sums[1], func(h FileHeader, size int64, content io.Reader) error {
			all, err := io.ReadAll(content)
			got = fmt.Sprint(h.UID, h.GID, h.Mode, len(h.Xattrs), size, bytes.Equal(all, data))
			return err
		})
		if want := fmt.Sprint(7, 8, uint32(0o104755), 2, len(data), true); err != nil || got != want || sums[0] != sums[1] {
			t.Errorf("%s: read back %s, want %s (%v)", what, got, want, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(objectPath(repo, sums[0]), &st); err != nil || st.Blocks*512 > 2<<20 {
			t.Errorf("%s: %d blocks for 1 MiB of data (%v)", what, st.Blocks, err)
		}
		fields := strings.Fields(run(t, "ostree", "checksum", objectPath(repo, sums[0])))
		if fields[0] != sums[0].String() {
			t.Errorf("%s: ostree computes %s, not %s", what, fields[0], sums[0])
		}
	}
}

// TestLargeContentKeepsItsLength: wherever the zeros are, which no write says.
func TestLargeContentKeepsItsLength(t *testing.T) {
	repo := createRepo(t)
	const size = smallContent + chunkSize + 5
	for what, written := range map[string][2]int{"all": {0, size}, "nothing": {}, "the end": {size - 3, size}, "the beginning": {0, 9}, "a whole chunk": {0, chunkSize}} {
		data := make([]byte, size)
		for i := written[0]; i < written[1]; i++ {
			data[i] = byte(i) | 1
		}
		sum, err := repo.WriteContent(t.Context(), FileHeader{Mode: 0o100644}, size, struct{ io.Reader }{bytes.NewReader(data)})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, err := os.ReadFile(objectPath(repo, sum)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back, not the same (%v)", what, len(got), err)
		}
	}
}

// TestWriteContentRefuses: each refusal is typed and leaves nothing behind.
func TestWriteContentRefuses(t *testing.T) {
	for what, repo := range map[string]*testRepo{"created": createRepo(t), "opened": openRepo(t)} {
		var size *SizeError
		var kind *FileTypeError
		broken := io.MultiReader(strings.NewReader("ab"), failReader{})
		big := strings.Repeat("b", smallContent)
		for _, c := range []struct {
			name    string
			header  FileHeader
			size    int64
			content io.Reader
			want    any
		}{
			{"short", FileHeader{Mode: 0o100644}, 3, strings.NewReader("ab"), &size},
			{"long", FileHeader{Mode: 0o100644}, 3, strings.NewReader("abcd"), &size},
			{"long, from bytes", FileHeader{Mode: 0o100644}, 3, bytes.NewReader([]byte("abcd")), &size},
			{"none", FileHeader{Mode: 0o100644}, 3, nil, &size},
			{"large, short", FileHeader{Mode: 0o100644}, smallContent + 2, strings.NewReader(big + "x"), &size},
			{"large, long", FileHeader{Mode: 0o100644}, smallContent + 2, strings.NewReader(big + "xyz"), &size},
			{"large, none", FileHeader{Mode: 0o100644}, smallContent + 2, nil, &size},
			{"unreadable", FileHeader{Mode: 0o100644}, 3, broken, errBroken},
			{"negative", FileHeader{Mode: 0o100644}, -1, nil, nil},
			{"link with content", FileHeader{Mode: 0o120777, Target: "x"}, 1, strings.NewReader("x"), nil},
			{"link to nothing", FileHeader{Mode: 0o120777}, 0, nil, ErrCorrupt},
			{"link to NUL", FileHeader{Mode: 0o120777, Target: "\x00"}, 0, nil, ErrCorrupt},
			{"file with target", FileHeader{Mode: 0o100644, Target: "x"}, 0, nil, ErrCorrupt},
			{"device", FileHeader{Mode: 0o020644}, 0, nil, &kind},
			{"fifo", FileHeader{Mode: 0o010644}, 0, nil, &kind},
			{"directory", FileHeader{Mode: 0o040755}, 0, nil, &kind},
			{"no type", FileHeader{Mode: 0o644}, 0, nil, &kind},
			{"owner", FileHeader{Mode: 0o100644, UID: noID}, 0, nil, ErrCorrupt},
			{"impossible attribute", FileHeader{Mode: 0o100644, Xattrs: []Xattr{{Name: "nosuch.name", Value: []byte("x")}}}, 1, strings.NewReader("x"), ErrCorrupt},
			{"impossible attribute, large", FileHeader{Mode: 0o100644, Xattrs: []Xattr{{Name: "nosuch.name", Value: []byte("x")}}}, smallContent + 1, strings.NewReader(big + "x"), ErrCorrupt},
			{"impossible attribute of a link", FileHeader{Mode: 0o120777, Target: "x", Xattrs: []Xattr{{Name: "user.x", Value: []byte("x")}}}, 0, nil, ErrCorrupt},
		} {
			_, err := repo.WriteContent(t.Context(), c.header, c.size, c.content)
			if !matches(err, c.want) {
				t.Errorf("%s repository, %s: error %v", what, c.name, err)
			}
		}
		if names := objectNames(t, repo.path); len(names) > 0 {
			t.Errorf("%s repository: left behind %v", what, names)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := repo.WriteContent(cancelled, FileHeader{Mode: 0o100644}, 0, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

var errBroken = errors.New("broken")

type failReader struct{}

func (failReader) Read([]byte) (int, error) { return 0, errBroken }

// matches is errors.As for a pointer to an error's type, errors.Is for an error, and "any error"
// for nil.
func matches(err error, want any) bool {
	switch want := want.(type) {
	case nil:
		return err != nil
	case error:
		return errors.Is(err, want)
	}
	return errors.As(err, want)
}

// TestConcurrentWrites: many goroutines write the same objects and link them at once; every one
// that returned is whole.
func TestConcurrentWrites(t *testing.T) {
	for what, repo := range map[string]*testRepo{"created": createRepo(t), "opened": openRepo(t)} {
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				rnd := rand.New(rand.NewSource(int64(g)))
				for range 60 {
					n := rnd.Intn(30)
					content := strings.Repeat(string(rune('a'+n)), n*n*n*50)
					sum, err := repo.WriteContent(t.Context(), FileHeader{Mode: 0o100600}, int64(len(content)), strings.NewReader(content))
					if err != nil {
						t.Error(err)
						return
					}
					st, err := os.Stat(objectPath(repo, sum))
					if err != nil || st.Size() != int64(len(content)) || st.ModTime().Unix() != 0 {
						t.Errorf("%s: object is not whole: %v %v", what, st, err)
					}
				}
			})
		}
		wg.Wait()
		for _, name := range objectNames(t, repo.path) {
			sum := sum(t, strings.NewReplacer("/objects/", "", "/", "", ".file", "").Replace(name))
			if err := repo.objects.verifyFile(t.Context(), sum); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestFailedWriterIsReplaced: a writer that waits for another takes over when that one fails.
func TestFailedWriterIsReplaced(t *testing.T) {
	repo := createRepo(t)
	h := FileHeader{Mode: 0o100644}
	k := objectKey{(&scratch{head: appendHeader(nil, &h), hash: sha256.New()}).sum([]byte("x")), TypeFile}
	if mine, err := repo.objects.claim(k); !mine || err != nil {
		t.Fatal(mine, err)
	}
	done := make(chan error)
	go func() { done <- repo.writer.store(k, &h, []byte("x")) }()
	repo.objects.settle(k, stateUnknown)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(objectPath(repo, k.sum)); err != nil {
		t.Error(err)
	}
}

// TestClosed: every use after Close says so.
func TestClosed(t *testing.T) {
	repo := createRepo(t)
	if err := repo.Close(); err != nil {
		t.Fatal(err)
	}
	c := Checksum{1}
	uses := map[string]func() error{
		"WriteContent": func() error { _, err := repo.WriteContent(t.Context(), FileHeader{Mode: 0o100644}, 0, nil); return err },
		"WriteDirTree": func() error { _, err := repo.WriteDirTree(DirTree{}); return err },
		"Load":         func() error { _, err := repo.Load(TypeCommit, c); return err },
		"LoadDirTree":  func() error { _, err := repo.LoadDirTree(c); return err },
		"ReadContent":  func() error { return repo.ReadContent(c, nil) },
		"SetRef":       func() error { return repo.SetRef("x", c) },
		"ResolveRef":   func() error { _, err := repo.ResolveRef("x"); return err },
		"ListRefs":     func() error { _, err := repo.ListRefs(); return err },
		"DeleteRef":    func() error { return repo.DeleteRef("x") },
		"Lock":         func() error { _, err := repo.Lock(true); return err },
		"Checkout":     func() error { return repo.Checkout(t.Context(), c, repo.root, "x", CheckoutOptions{}) },
		"Fsck":         func() error { return repo.Fsck(t.Context()) },
		"Sync":         repo.Sync,
		"Close":        repo.Close,
	}
	for name, use := range uses {
		if err := use(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReopen: a second handle finds the objects of the first, and does not write them again.
func TestReopen(t *testing.T) {
	repo := createRepo(t)
	first := store(t, repo, 0o100644, "content")
	var before, after unix.Stat_t
	if err := unix.Stat(objectPath(repo, first), &before); err != nil {
		t.Fatal(err)
	}
	again, err := Open(repo.root, repo.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for range 2 {
		second, err := again.WriteContent(t.Context(), FileHeader{Mode: 0o100644}, 7, strings.NewReader("content"))
		if err != nil || second != first {
			t.Fatalf("%s, %v", second, err)
		}
	}
	if err := unix.Stat(objectPath(repo, first), &after); err != nil || after.Ino != before.Ino || after.Ctim != before.Ctim {
		t.Errorf("the object was written again (%v)", err)
	}
	if names, _ := filepath.Glob(repo.path + "/tmp/write-*"); len(names) > 0 {
		t.Errorf("left in tmp: %v", names)
	}
}
