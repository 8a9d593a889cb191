package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// openFiles lists the files that the process has open.
func openFiles(t *testing.T) map[string]bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	open := map[string]bool{}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/proc") {
			open[target] = true
		}
	}
	return open
}

// settle fails if goroutines of this package, or open files, stay behind.
func settle(t *testing.T, before map[string]bool) {
	t.Helper()
	buf := make([]byte, 1<<20)
	if stacks := string(buf[:runtime.Stack(buf, true)]); strings.Contains(stacks, "(*pump)") || strings.Contains(stacks, "(*storePool)") {
		t.Errorf("goroutines are left:\n%s", stacks)
	}
	for name := range openFiles(t) {
		if !before[name] {
			t.Errorf("left open: %s", name)
		}
	}
}

// busyImage has layers that take a while: many small files, and large ones.
func busyImage(t *testing.T) []blobLayer {
	var layers []blobLayer
	for i := range 4 {
		var items []item
		for j := range 300 {
			items = append(items, file(fmt.Sprintf("d%d/f%d", i, j), strings.Repeat("x", j*37)))
		}
		items = append(items, file(fmt.Sprintf("d%d/large", i), strings.Repeat("large", 400_000)))
		layers = append(layers, gzipLayer(t, tarOf(t, items...)))
	}
	return layers
}

func busyDir(t *testing.T) Ref {
	root := t.TempDir()
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), make([]byte, i*1000), 0o644))
	}
	return Ref{TransportRootfs, root}
}

func TestCancelStopsEverything(t *testing.T) {
	before := openFiles(t)
	for _, ref := range []Ref{layoutOf(t, busyImage(t)...), busyDir(t)} {
		for _, after := range []int64{1, 50, 200} {
			ctx, cancel := context.WithCancel(t.Context())
			var calls atomic.Int64
			sink := &memorySink{fail: func(Meta, string, int64) error {
				if calls.Add(1) == after {
					cancel()
				}
				return nil
			}}
			img, err := Open(ctx, ref, accept(t))
			must(t, err)
			_, err = img.Import(ctx, sink, ImportOptions{})
			must(t, img.Close())
			if !errors.Is(err, context.Canceled) || errors.As(err, new(*SourceError)) {
				t.Errorf("%s: %v", ref, err)
			}
			settle(t, before)
		}
	}
}

func TestCancelWhileSinkIsBlocked(t *testing.T) {
	before := openFiles(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	img, err := Open(ctx, layoutOf(t, busyImage(t)...), accept(t))
	must(t, err)
	_, err = img.Import(ctx, blockedSink{}, ImportOptions{})
	must(t, img.Close())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	settle(t, before)
}

// blockedSink stores nothing until it is cancelled.
type blockedSink struct{}

func (blockedSink) Store(ctx context.Context, _ Meta, _ string, _ int64, _ io.Reader) (ContentID, error) {
	<-ctx.Done()
	return ContentID{}, ctx.Err()
}

func TestSinkErrorIsNotTheSources(t *testing.T) {
	before := openFiles(t)
	full := errors.New("no space left")
	for _, size := range []int64{370, 2_000_000} { // a small and a large file
		for _, ref := range []Ref{layoutOf(t, busyImage(t)...), layoutOf(t, plainLayer(tarOf(t, file("l", string(make([]byte, 2_000_000))), file("s", string(make([]byte, 370))))))} {
			sink := &memorySink{fail: func(_ Meta, _ string, n int64) error {
				if n == size {
					return full
				}
				return nil
			}}
			img, err := Open(t.Context(), ref, accept(t))
			must(t, err)
			_, err = img.Import(t.Context(), sink, ImportOptions{})
			must(t, img.Close())
			if !errors.Is(err, full) || errors.As(err, new(*SourceError)) {
				t.Errorf("%d bytes: %v", size, err)
			}
			settle(t, before)
		}
	}
}

func TestProgressAddsUp(t *testing.T) {
	layers := busyImage(t)
	layers = append(layers, layers[0])
	for _, ref := range []Ref{layoutOf(t, layers...), busyDir(t)} {
		var sum atomic.Int64
		img, err := Open(t.Context(), ref, accept(t))
		must(t, err)
		_, err = img.Import(t.Context(), &memorySink{}, ImportOptions{Progress: func(n int64) { sum.Add(n) }})
		must(t, errors.Join(err, img.Close()))
		if sum.Load() != img.SourceSize() || sum.Load() == 0 {
			t.Errorf("%s: told of %d of %d bytes", ref, sum.Load(), img.SourceSize())
		}
	}
}

func TestUncompressedSizes(t *testing.T) {
	plain := tarOf(t, file("a", strings.Repeat("some text, ", 50_000)))
	members := append(gzipBytes(t, plain[:len(plain)-100]), gzipBytes(t, plain[len(plain)-100:])...)
	img, err := Open(t.Context(), layoutOf(t, plainLayer(plain), gzipLayer(t, plain), zstdLayer(t, plain),
		blobLayer{members, digestOf(plain), "application/vnd.oci.image.layer.v1.tar+gzip"}), accept(t))
	must(t, err)
	defer img.Close()
	size := int64(len(plain))
	for i, want := range []int64{size, size, 0, 0} { // the test's zstd stream states no size
		if got := img.Layers[i].Uncompressed; got != want {
			t.Errorf("layer %d: %d bytes, expected %d", i, got, want)
		}
	}
	sized := run(t, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x > $1 && zstd -q -c --no-check $1", "sh", filepath.Join(t.TempDir(), "f"))
	if got, err := estimateSize(strings.NewReader(sized), int64(len(sized)), ""); err != nil || got != 100_000 {
		t.Errorf("zstd frame with a size: %d, %v", got, err)
	}
}

// TestManyEntries bounds the memory of the trees: 300,000 files in the directories of an OS take
// well under the limit of the whole program.
func TestManyEntries(t *testing.T) {
	const entries = 300_000
	path := filepath.Join(t.TempDir(), "layer.tar")
	writeManyEntries(t, path, entries)
	plain, err := os.ReadFile(path)
	must(t, err)
	ref := layoutOf(t, plainLayer(plain))
	plain = nil
	before := liveHeap()
	img, err := Open(t.Context(), ref, accept(t))
	must(t, err)
	defer img.Close()
	tree, err := img.Import(t.Context(), constantSink{}, ImportOptions{})
	must(t, err)
	used := liveHeap() - before
	files, _, _, _ := tree.Stats()
	if each := used / entries; files != entries || each > 220 {
		t.Errorf("%d files take %d MiB, %d bytes each", files, used>>20, each)
	}
	runtime.KeepAlive(tree)
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// constantSink reads and forgets.
type constantSink struct{}

func (constantSink) Store(_ context.Context, _ Meta, _ string, _ int64, content io.Reader) (ContentID, error) {
	if content == nil {
		return ContentID{1}, nil
	}
	_, err := io.Copy(io.Discard, content)
	return ContentID{1}, err
}
