package composefs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// mkcomposefs makes an image of a dump.
func mkcomposefs(t testing.TB, dump string, v Versions) ([]byte, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	_, err := kit.TryOracle(t, []byte(dump), "mkcomposefs", "--from-file",
		fmt.Sprintf("--min-version=%d", v.Min), fmt.Sprintf("--max-version=%d", v.Max), "-", path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, nil
}

// write returns the image of a tree.
func write(t testing.TB, root *Inode, v Versions) ([]byte, error) {
	t.Helper()
	img, err := New(root, v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if n, err := img.WriteTo(&out); err != nil || n != img.Size() || n != int64(out.Len()) {
		t.Fatalf("WriteTo: %d bytes of %d, %v; %d arrived", n, img.Size(), err, out.Len())
	}
	return out.Bytes(), nil
}

// same compares the images of a tree.
func same(t testing.TB, root *Inode, v Versions) []byte {
	t.Helper()
	text := dump(root)
	want, err := mkcomposefs(t, text, v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := write(t, root, v)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		lines := strings.Split(text, "\n")
		t.Fatalf("versions %v: %d bytes, want %d; the first that differs is at %#x; %d lines:\n%.4000s", v, len(got), len(want), at, len(lines), text)
	}
	return got
}

// dump writes a tree in the text form of mkcomposefs (composefs-dump(5)).
func dump(root *Inode) string {
	var out strings.Builder
	paths := map[*Inode]string{}
	var note func(path string, n *Inode)
	note = func(path string, n *Inode) {
		paths[n] = path
		for _, e := range n.Entries {
			if !e.Link {
				note(path+"/"+e.Name, e.Inode)
			}
		}
	}
	note("", root)
	var walk func(path string, n *Inode, link bool)
	walk = func(path string, n *Inode, link bool) {
		dumpLine(&out, path, n, link, paths[n])
		for _, e := range n.Entries {
			walk(path+"/"+e.Name, e.Inode, e.Link)
		}
	}
	walk("", root, false)
	return out.String()
}

func dumpLine(out *strings.Builder, path string, n *Inode, link bool, target string) {
	if path == "" {
		path = "/"
	}
	size, mark, payload, content, digest := n.Size, "", "-", "-", "-"
	switch {
	case link:
		mark, payload = "@", escape(target, false)
	case n.Target != "":
		payload, size = escape(n.Target, false), uint64(len(n.Target))
	case n.Path != "":
		payload = escape(n.Path, false)
	}
	if len(n.Content) > 0 {
		content, size = escape(string(n.Content), false), uint64(len(n.Content))
	}
	if len(n.Digest) > 0 {
		digest = hex.EncodeToString(n.Digest)
	}
	fmt.Fprintf(out, "%s %d %s%o %d %d %d %d %d.%d %s %s %s", escape(path, false), size, mark, n.Mode, max(n.Links, 1), n.UID, n.GID,
		n.Rdev, n.MtimeSec, n.MtimeNsec, payload, content, digest)
	if !link {
		for _, x := range n.Xattrs {
			fmt.Fprintf(out, " %s=%s", escape(x.Name, true), escape(string(x.Value), false))
		}
	}
	out.WriteByte('\n')
}

func escape(s string, equals bool) string {
	if s == "-" {
		return `\x2d`
	}
	var out strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '\\':
			out.WriteString(`\\`)
		case c <= ' ' || c >= 0x7f || c == '=' && equals:
			fmt.Fprintf(&out, `\x%02x`, c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// verityOf is the digest of an image.
func verityOf(data []byte) string {
	h := NewHash()
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
