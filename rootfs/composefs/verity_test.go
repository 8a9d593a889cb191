package composefs

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// pattern is n bytes that repeat no block.
func pattern(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(7*i + 3)
	}
	return out
}

// digestOf writes the content in pieces of odd sizes.
func digestOf(t testing.TB, content []byte) string {
	t.Helper()
	h := NewHash()
	for size := 1; len(content) > 0; size = size*3%8191 + 1 {
		n, err := h.Write(content[:min(size, len(content))])
		if err != nil {
			t.Fatal(err)
		}
		content = content[n:]
		if size%5 == 0 {
			h.Sum(nil) // which must change nothing
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestDigestVectors(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":          {nil, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"},
		"one byte":       {[]byte("a"), "bce75948b9e7510293f8f2720412af9697c1479281323f3f220623fb8e94b557"},
		"a block":        {make([]byte, 4096), "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e"},
		"a byte more":    {bytes.Repeat([]byte("A"), 4097), "7319937c445f61df1a8f310eb4d6da157618d80713972a78d70a7528fc1a6f32"},
		"a full level":   {pattern(524288), "63b839ad83d865013c0ad8636ee048fd3870e0fb6bdbc748e8a1a5c64bb845d3"},
		"a second level": {pattern(524289), "7afe8ca9f259571b5eb25934658bea446d0b6c8f4283aa37d6d42cc5c1e0e2f7"},
		"three levels":   {bytes.Repeat(all, 286720), "5f69a2dceee9f8b1479771a4668ba96aaa11583fc3534d0f01b1748d1bcabec5"},
	} {
		if got := digestOf(t, c.content); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// fsverity computes the same digests.
func TestDigestIsThatOfFsverity(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 4095, 4096, 4097, 127 * 4096, 128 * 4096, 129 * 4096, 128*4096 + 1, 255*4096 + 17, 128 * 128 * 4096, 128*128*4096 + 1, 129 * 128 * 4096}
	for range 20 {
		sizes = append(sizes, random.IntN(3<<20))
	}
	dir := t.TempDir()
	args := []string{"digest", "--compact"}
	var want []string
	for _, size := range sizes {
		file := filepath.Join(dir, "file"+string(rune('A'+len(want))))
		content := pattern(size)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		args, want = append(args, file), append(want, digestOf(t, content))
	}
	if got := strings.Fields(kit.Oracle(t, "fsverity", args...)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("fsverity:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestResetHash(t *testing.T) {
	h := NewHash()
	io.Copy(h, bytes.NewReader(pattern(700000)))
	h.Reset()
	io.WriteString(h, "a")
	if got := hex.EncodeToString(h.Sum(nil)); got != digestOf(t, []byte("a")) {
		t.Errorf("after Reset: %s", got)
	}
}

func BenchmarkDigest(b *testing.B) {
	content := pattern(64 << 20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		h := NewHash()
		h.Write(content)
		h.Sum(nil)
	}
}
