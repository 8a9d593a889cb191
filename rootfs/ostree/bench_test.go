package ostree

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkImport stores a tree of 20,000 files that comes as a tar stream and checks it out, on
// xfs in a loop device, beside `tar -x` and beside `ostree commit --tree=tar` with `ostree checkout
// -H`, all synced. It reports the ratios of the medians.
func BenchmarkImport(b *testing.B) {
	archive := b.TempDir() + "/tree.tar"
	makeTar(b, archive, 20000)
	var native, store, check, floor, sync, peer []time.Duration
	for b.Loop() {
		withXFS(b, func(dir string) {
			total, wait := tarExtract(b, archive, dir)
			floor, sync = append(floor, total), append(sync, wait)
		})
		withXFS(b, func(dir string) {
			start := time.Now()
			s, c := nativeImport(b, archive, dir)
			native = append(native, time.Since(start))
			store, check = append(store, s), append(check, c)
		})
		withXFS(b, func(dir string) { peer = append(peer, timed(func() { ostreeImport(b, archive, dir) })) })
	}
	b.ReportMetric(median(native).Seconds(), "native-s")
	b.ReportMetric(median(store).Seconds(), "native-store-s")
	b.ReportMetric(median(check).Seconds(), "native-checkout-s")
	b.ReportMetric(median(floor).Seconds(), "tar-s")
	b.ReportMetric(median(sync).Seconds(), "tar-sync-s")
	b.ReportMetric(ratio(native, floor), "native/tar")
	b.ReportMetric(ratio(peer, native), "ostree/native")
}

func timed(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

func median(d []time.Duration) time.Duration {
	s := slices.Clone(d)
	slices.Sort(s)
	return s[len(s)/2]
}

func ratio(a, b []time.Duration) float64 { return median(a).Seconds() / median(b).Seconds() }

// withXFS runs fn on a new, empty file system.
func withXFS(b *testing.B, fn func(dir string)) {
	b.Helper()
	base := b.TempDir()
	img, dir := base+"/img", base+"/mnt"
	mustMkdir(b, dir)
	run(b, "truncate", "-s", "6G", img)
	run(b, "mkfs.xfs", "-q", img)
	run(b, "mount", "-o", "loop", img, dir)
	defer func() {
		run(b, "umount", dir)
		run(b, "rm", img)
	}()
	fn(dir)
}

// makeTar writes a tree with the sizes of an operating system's files: many small ones, a few of
// some MiB, 28 KiB on average.
func makeTar(b *testing.B, name string, files int) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	rnd := rand.New(rand.NewSource(1))
	buf := make([]byte, 8<<20)
	for i := range files {
		if i%12 == 0 {
			writeEntry(b, w, &tar.Header{Typeflag: tar.TypeDir, Name: benchDir(i), Mode: 0o755}, nil)
		}
		data := buf[:min(len(buf), int(200+3300/(0.0002+rnd.Float64())))]
		rnd.Read(data)
		writeEntry(b, w, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/file-%d", benchDir(i), i), Mode: 0o644, Size: int64(len(data))}, data)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchDir(i int) string { return fmt.Sprintf("usr/lib/d%d", i/12) }

func writeEntry(b *testing.B, w *tar.Writer, h *tar.Header, data []byte) {
	b.Helper()
	if err := w.WriteHeader(h); err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		b.Fatal(err)
	}
}

func tarExtract(b *testing.B, archive, dir string) (total, sync time.Duration) {
	b.Helper()
	total = timed(func() { run(b, "tar", "-x", "--numeric-owner", "-p", "-C", dir, "-f", archive) })
	sync = timed(func() { run(b, "sync", "-f", dir) })
	return total + sync, sync
}

func ostreeImport(b *testing.B, archive, dir string) {
	b.Helper()
	repo := "--repo=" + dir + "/repo"
	run(b, "ostree", repo, "init", "--mode=bare")
	run(b, "ostree", repo, "commit", "-b", "x", "--tree=tar="+archive, "--tar-autocreate-parents")
	run(b, "ostree", repo, "checkout", "-H", "x", dir+"/out")
	run(b, "sync", "-f", dir)
}

// nativeImport stores the archive and checks it out, and says how long each took.
func nativeImport(b *testing.B, archive, dir string) (store, check time.Duration) {
	b.Helper()
	root := openRoot(b, dir)
	defer root.Close()
	repo, err := Create(root, Config{}, newLedger())
	if err != nil {
		b.Fatal(err)
	}
	defer repo.Close()
	start := time.Now()
	commit, err := importArchive(repo, archive)
	if err != nil {
		b.Fatal(err)
	}
	store = time.Since(start)
	check = timed(func() { err = repo.Checkout(b.Context(), commit, root, "out", CheckoutOptions{}) })
	if err != nil {
		b.Fatal(err)
	}
	if err := repo.Sync(); err != nil {
		b.Fatal(err)
	}
	return store, check
}

// benchNode is one file or directory of the archive.
type benchNode struct {
	sum      Checksum
	children map[string]*benchNode
}

func (n *benchNode) at(name string) *benchNode {
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if n.children == nil {
			n.children = map[string]*benchNode{}
		}
		if n.children[part] == nil {
			n.children[part] = &benchNode{}
		}
		n = n.children[part]
	}
	return n
}

// importArchive reads on one goroutine and stores on one for each processor.
func importArchive(repo *Repo, archive string) (Checksum, error) {
	f, err := os.Open(archive)
	if err != nil {
		return Checksum{}, err
	}
	defer f.Close()
	g, ctx := errgroup.WithContext(context.Background())
	g.SetLimit(runtime.GOMAXPROCS(0))
	top := &benchNode{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Checksum{}, err
		}
		node := top.at(h.Name)
		if h.Typeflag == tar.TypeDir {
			continue
		}
		data := make([]byte, h.Size)
		if _, err := io.ReadFull(r, data); err != nil {
			return Checksum{}, err
		}
		g.Go(func() (err error) {
			node.sum, err = repo.WriteContent(ctx, FileHeader{Mode: modeRegular | uint32(h.Mode)}, h.Size, bytes.NewReader(data))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Checksum{}, err
	}
	return commitNodes(repo, top)
}

func commitNodes(repo *Repo, top *benchNode) (Checksum, error) {
	meta, err := repo.WriteDirMeta(DirMeta{Mode: modeDirectory | 0o755})
	if err != nil {
		return Checksum{}, err
	}
	tree, err := storeNodes(repo, top, meta)
	if err != nil {
		return Checksum{}, err
	}
	return repo.WriteCommit(Commit{Tree: tree, Meta: meta})
}

func storeNodes(repo *Repo, n *benchNode, meta Checksum) (Checksum, error) {
	var t DirTree
	for name, c := range n.children {
		if c.children == nil {
			t.Files = append(t.Files, FileEntry{name, c.sum})
			continue
		}
		sub, err := storeNodes(repo, c, meta)
		if err != nil {
			return Checksum{}, err
		}
		t.Dirs = append(t.Dirs, DirEntry{name, sub, meta})
	}
	return repo.WriteDirTree(t)
}
