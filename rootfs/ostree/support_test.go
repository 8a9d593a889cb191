package ostree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// testLedger counts open handles by kind and name.
type testLedger struct {
	mu   sync.Mutex
	open map[string]int
	seen map[string]int
}

func newLedger() *testLedger {
	return &testLedger{open: map[string]int{}, seen: map[string]int{}}
}

func (l *testLedger) Opened(kind, name string) func() {
	key := kind + " " + name
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[key]++
	l.seen[key]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open[key]--; l.open[key] == 0 {
			delete(l.open, key)
		}
	}
}

func (l *testLedger) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for k, n := range l.open {
		out = append(out, fmt.Sprintf("%s x%d", k, n))
	}
	sort.Strings(out)
	return out
}

// testRepo is a repository in a temporary directory, with the ledger checked and the descriptors
// counted at the end.
type testRepo struct {
	*Repo
	root   *os.File
	dir    string // the physical root
	path   string // the repository
	ledger *testLedger
}

func openRoot(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func createRepo(t testing.TB) *testRepo { return createRepoIn(t, t.TempDir()) }

func createRepoIn(t testing.TB, dir string) *testRepo {
	t.Helper()
	tr := &testRepo{dir: dir, path: dir + "/" + repoPath, ledger: newLedger(), root: openRoot(t, dir)}
	var err error
	tr.Repo, err = Create(tr.root, Config{Bootloader: "none", BootPrefix: true, ReadOnly: true}, tr.ledger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.finish(t) })
	return tr
}

// openRepo makes a repository with the ostree command and opens it.
func openRepo(t testing.TB) *testRepo {
	t.Helper()
	dir := t.TempDir()
	tr := &testRepo{dir: dir, path: dir + "/" + repoPath, ledger: newLedger(), root: openRoot(t, dir)}
	mustMkdir(t, dir+"/ostree")
	run(t, "ostree", "--repo="+tr.path, "init", "--mode=bare")
	var err error
	if tr.Repo, err = Open(tr.root, tr.ledger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.finish(t) })
	return tr
}

func (tr *testRepo) finish(t testing.TB) {
	t.Helper()
	tr.Repo.Close() // the test may have closed it
	if left := tr.ledger.list(); len(left) > 0 {
		t.Errorf("still open: %v", left)
	}
	if left := descriptors(t, tr.dir); len(left) > 0 {
		t.Errorf("descriptors still open: %v", left)
	}
	if names, err := filepath.Glob(tr.path + "/tmp/write-*"); err != nil || len(names) > 0 {
		t.Errorf("left in tmp: %v %v", names, err)
	}
}

// descriptors lists the process's descriptors on files beneath dir.
func descriptors(t testing.TB, dir string) []string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range names {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && strings.HasPrefix(target, dir+"/") {
			out = append(out, target)
		}
	}
	return out
}

func mustMkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// run runs an outside program, the oracle, and returns its output.
func run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := tryRun(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryRun(argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// importTree stores a real directory in the repository and returns its root.
func importTree(t testing.TB, r *Repo, dir string) (tree, meta Checksum) {
	t.Helper()
	var dt DirTree
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			d := DirEntry{Name: e.Name()}
			d.Tree, d.Meta = importTree(t, r, path)
			dt.Dirs = append(dt.Dirs, d)
			continue
		}
		dt.Files = append(dt.Files, FileEntry{e.Name(), importFile(t, r, path)})
	}
	h := headerOf(t, dir)
	if meta, err = r.WriteDirMeta(DirMeta{h.UID, h.GID, h.Mode, h.Xattrs}); err != nil {
		t.Fatal(err)
	}
	if tree, err = r.WriteDirTree(dt); err != nil {
		t.Fatal(err)
	}
	return tree, meta
}

func importFile(t testing.TB, r *Repo, path string) Checksum {
	t.Helper()
	h := headerOf(t, path)
	var content io.Reader
	var size int64
	if !h.IsSymlink() {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		content, size = f, st.Size()
	}
	sum, err := r.WriteContent(context.Background(), h, size, content)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return sum
}

// headerOf reads a file's metadata by other means than the package does.
func headerOf(t testing.TB, path string) FileHeader {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	h := FileHeader{UID: st.Uid, GID: st.Gid, Mode: st.Mode, Xattrs: xattrsOf(t, path)}
	if h.IsSymlink() {
		var err error
		if h.Target, err = os.Readlink(path); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func xattrsOf(t testing.TB, path string) []Xattr {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var out []Xattr
	for _, name := range bytes.Split(buf[:n], []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Xattr{Name: string(name), Value: value[:n]})
	}
	return out
}

// inventory lists a tree: everything that a checkout must get right. Times of links and, unless
// asked for, of everything are left out.
func inventory(t testing.TB, dir string, times bool) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		h := headerOf(t, path)
		sort.Slice(h.Xattrs, func(i, j int) bool { return h.Xattrs[i].Name < h.Xattrs[j].Name })
		line := fmt.Sprintf("%q %o %d:%d -> %q %q", strings.TrimPrefix(path, dir), h.Mode, h.UID, h.GID, h.Target, h.Xattrs)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(data))
		}
		if times && !h.IsSymlink() && (d.IsDir() || st.Size > 0) {
			line += fmt.Sprintf(" %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameLines compares two inventories and shows the first difference.
func sameLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := 0; i < len(got) || i < len(want); i++ {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("%s differs:\n got  %s\n want %s", what, g, w)
		}
	}
}
