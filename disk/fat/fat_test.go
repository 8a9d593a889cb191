package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

func fatProblems(t *testing.T, path string) (*Volume, []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(f, info.Size())
	if err != nil {
		return nil, []string{err.Error()}
	}
	problems := v.Structure()
	v.Walk(func(where, what string) { problems = append(problems, where+": "+what) })
	return v, problems
}

// TestFATAgreesWithOtherWriters reads a volume of mkfs.fat and mtools.
func TestFATAgreesWithOtherWriters(t *testing.T) {
	path := kit.Sparse(t, 64<<20)
	kit.Run(t, "mkfs.fat", "-F", "32", "-s", "1", "-n", "LABEL", path)
	content := bytes.Repeat([]byte("0123456789"), 20000)
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, "mmd", "-i", path, "::/EFI", "::/EFI/a long directory name")
	for _, name := range []string{"::/EFI/a long directory name/A rather long file name.Config", "::/lower.txt", "::/UPPER.TXT"} {
		kit.Run(t, "mcopy", "-i", path, source, name)
	}
	for n := range 40 { // more than one cluster of entries
		kit.Run(t, "mcopy", "-i", path, source, fmt.Sprintf("::/EFI/file number %d", n))
	}
	kit.Run(t, "mdel", "-i", path, "::/EFI/file number 7")
	v, problems := fatProblems(t, path)
	if len(problems) > 0 {
		t.Fatalf("a sound volume: %v", problems)
	}
	if len(v.files) != 42 || len(v.Names) != 44 {
		t.Errorf("%d files, %d names: %v", len(v.files), len(v.Names), v.Names)
	}
	f, ok := v.Find("/efi/A LONG directory name/a rather long file name.config")
	if !ok || f.Path != "EFI/a long directory name/A rather long file name.Config" {
		t.Fatalf("%+v", f)
	}
	if got, err := io.ReadAll(v.Reader(f)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestFATDamage damages a volume; fsck.fat confirms that each is one.
func TestFATDamage(t *testing.T) {
	path := kit.Sparse(t, 64<<20)
	kit.Run(t, "mkfs.fat", "-F", "32", "-s", "1", path)
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, "mcopy", "-i", path, source, "::/a file with a long name")
	kit.Run(t, "mcopy", "-i", path, source, "::/second")
	v, problems := fatProblems(t, path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	second, _ := v.Find("second")
	rootDir := make([]byte, v.cluster)
	if err := v.readCluster(v.rootDir, rootDir); err != nil {
		t.Fatal(err)
	}
	sizeAt := v.dataStart + int64(bytes.Index(rootDir, []byte("SECOND     "))) + 28
	link := func(c uint32) []byte { return binary.LittleEndian.AppendUint32(nil, c) }
	linkAt := func(c uint32) int64 { return v.tableAt + 4*int64(c) }
	twice := func(at int64, change []byte, fn func()) {
		kit.Patch(t, path, at, change, func() { kit.Patch(t, path, at+int64(len(v.table)), change, fn) })
	}
	for _, c := range []struct {
		name, want string
		damage     func(fn func())
	}{
		{"tables differ", "tables differ", func(fn func()) { kit.Patch(t, path, linkAt(3), link(0x0ffffff8), fn) }},
		{"cross-linked", "belongs to something else", func(fn func()) { twice(linkAt(second.chain[2]), link(4), fn) }},
		{"chain too short", "its chain has 3", func(fn func()) { twice(linkAt(second.chain[2]), link(0x0fffffff), fn) }},
		{"chain out of the volume", "does not exist", func(fn func()) { twice(linkAt(second.chain[2]), link(0x0ffffff0), fn) }},
		{"lost cluster", "belong to no file", func(fn func()) { twice(linkAt(1000), link(0x0fffffff), fn) }},
		{"boot sector", "copy of the boot sector", func(fn func()) { kit.Patch(t, path, 100, []byte{1}, fn) }},
		{"size in a directory", "its chain has", func(fn func()) { kit.Patch(t, path, sizeAt, []byte{1, 0}, fn) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.damage(func() {
				if _, problems := fatProblems(t, path); !strings.Contains(strings.Join(problems, "\n"), c.want) {
					t.Errorf("found %v", problems)
				}
				if out, err := exec.Command("fsck.fat", "-n", path).CombinedOutput(); err == nil && !bytes.Contains(out, []byte("differences")) {
					t.Errorf("fsck.fat finds nothing wrong: %s", out)
				}
			})
		})
	}
	if _, problems := fatProblems(t, path); len(problems) > 0 {
		t.Errorf("mended: %v", problems)
	}
}

// FuzzFAT reads a volume whose front part, with the root directory, is damaged at will.
func FuzzFAT(f *testing.F) {
	const size = 36 << 20
	path := filepath.Join(f.TempDir(), "image")
	if out, err := exec.Command("mkfs.fat", "-C", "-F", "32", "-s", "1", path, fmt.Sprint(size>>10)).CombinedOutput(); err != nil {
		f.Fatalf("mkfs.fat: %v %s", err, out)
	}
	volume, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	v, err := Open(bytes.NewReader(volume), size)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(volume[:512], []byte{0xf8, 0xff, 0xff, 0x0f}, []byte("NAME    EXT \x10"))
	f.Fuzz(func(t *testing.T, boot, table, dir []byte) {
		b := bytes.Clone(volume)
		copy(b, boot)
		copy(b[v.tableAt:v.dataStart], table)
		copy(b[v.dataStart:], dir)
		v, err := Open(bytes.NewReader(b), size)
		if err != nil {
			return
		}
		v.Structure()
		v.Walk(func(string, string) {})
	})
}
