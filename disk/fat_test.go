package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/disk/fat"

	"installer/tests/kit"
)

// newFAT makes a FAT file system on a disk's EFI system partition.
func newFAT(t *testing.T, d *Disk, espSize int64) (*FAT, Partition) {
	t.Helper()
	esp := part(t, written(t, d, PlanOptions{BIOSBoot: true, ESPSize: espSize}), NameESP)
	f, err := d.FAT(esp, "EFI-SYSTEM")
	if err != nil {
		t.Fatal(err)
	}
	return f, esp
}

// espImage copies the partition to a file of its own, for fsck.fat, which takes no offset.
func espImage(t *testing.T, disk string, p Partition) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "esp.img")
	kit.Run(t, "dd", "status=none", "conv=sparse", "bs=1M", "if="+disk, "of="+path,
		fmt.Sprintf("skip=%d", p.Start/mib), fmt.Sprintf("count=%d", p.Size/mib))
	return path
}

// checkedByFsck wants fsck.fat to be content without a word of complaint.
func checkedByFsck(t *testing.T, image string) {
	t.Helper()
	out := kit.Run(t, "fsck.fat", "-n", "-v", image)
	for _, bad := range []string{"rong", "ninitialized", "differ"} {
		if strings.Contains(out, bad) {
			t.Errorf("fsck.fat says %q:\n%s", bad, out)
		}
	}
}

// content is reproducible noise.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256(binary.LittleEndian.AppendUint64(nil, seed))).Read(b)
	return b
}

// espFiles are like the files of boot loaders, with names and sizes at the edges of clusters.
func espFiles() map[string][]byte {
	files := map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI":                 content(1, 700_001),
		"EFI/debian/grub.cfg":                  content(2, 1),
		"loader/loader.conf":                   content(3, 4095),
		"loader/entries/ostree-1.conf":         content(4, 4096),
		"loader/entries/ostree-2.conf":         content(5, 4097),
		"loader/entries/ostree-1-default.conf": content(6, 300),
		"ostree/default-0123456789abcdef0123456789abcdef/vmlinuz-6.1.0-49-cloud-amd64":       content(7, 8<<20),
		"ostree/default-0123456789abcdef0123456789abcdef/initramfs-6.1.0-49-cloud-amd64.img": content(8, 80<<20),
		"exactly13char": content(9, 10),
		"UPPER.TXT":     content(10, 10),
	}
	for i := range 150 { // more entries than one cluster of a directory holds
		files[fmt.Sprintf("many/a-rather-long-file-name-%03d.conf", i)] = content(uint64(100+i), 10+i*37)
	}
	return files
}

func writeFiles(t *testing.T, f *FAT, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		if err := f.MkdirAll(filepath.Dir("/" + name)); err != nil && filepath.Dir("/"+name) != "/" {
			t.Fatal(err)
		}
		if err := f.WriteFile(name, int64(len(b)), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFAT(t *testing.T) {
	for _, tc := range []struct {
		sector  int
		esp     int64
		cluster int64
	}{{512, 512 * mib, 4096}, {4096, 512 * mib, 4096}, {512, 200 * mib, 512}} {
		t.Run(fmt.Sprintf("sector %d esp %d MiB", tc.sector, tc.esp/mib), func(t *testing.T) {
			path := rawFile(t, 1<<30)
			d := opened(t, path, sectorSize(tc.sector))
			f, esp := newFAT(t, d, tc.esp)
			if g := fat.Plan(esp.Size, tc.sector); g.Cluster != tc.cluster {
				t.Errorf("clusters of %d bytes", g.Cluster)
			}
			files := espFiles()
			writeFiles(t, f, files)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			checkedByFsck(t, espImage(t, path, esp))
			compareWithMtools(t, path, esp, files)
			checkBootSector(t, d, esp)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// compareWithMtools reads everything by mcopy and compares names, case included, and content.
func compareWithMtools(t *testing.T, disk string, esp Partition, files map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("mcopy", "-s", "-Q", "-n", "-i", fmt.Sprintf("%s@@%d", disk, esp.Start), "::/*", dir)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
	got := 0
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		b, err := os.ReadFile(p)
		if want, ok := files[name]; !ok || !bytes.Equal(b, want) {
			t.Errorf("%s: wrong content or unknown name", name)
		}
		got++
		return err
	})
	if err != nil || got != len(files) {
		t.Errorf("mcopy gave %d files of %d (%v)", got, len(files), err)
	}
}

// checkBootSector compares the boot sector with blkid's reading, and checks fields that no checker
// looks at.
func checkBootSector(t *testing.T, d *Disk, esp Partition) {
	t.Helper()
	out := kit.Run(t, "blkid", "-p", "-o", "export", "-O", fmt.Sprint(esp.Start), "-S", fmt.Sprint(esp.Size), d.Path())
	serial := strings.ToUpper(esp.UUID[:4] + "-" + esp.UUID[4:8])
	for _, want := range []string{"TYPE=vfat", "VERSION=FAT32", "LABEL=EFI-SYSTEM", "LABEL_FATBOOT=EFI-SYSTEM", "UUID=" + serial} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("blkid does not say %s:\n%s", want, out)
		}
	}
	for _, at := range []int64{0, 6 * int64(d.SectorSize())} {
		b := make([]byte, 512)
		if _, err := d.ReadAt(b, esp.Start+at); err != nil {
			t.Fatal(err)
		}
		if hidden := binary.LittleEndian.Uint32(b[28:]); int64(hidden)*int64(d.SectorSize()) != esp.Start {
			t.Errorf("hidden sectors are %d", hidden)
		}
	}
}

func TestFATRefusals(t *testing.T) {
	path := rawFile(t, 1<<30)
	d := opened(t, path)
	f, esp := newFAT(t, d, 40*mib)
	one := func(name string) error { return f.WriteFile(name, 1, strings.NewReader("x")) }
	if err := one("loader.conf"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "/", ".hidden", "name.", "a:b", "ä", strings.Repeat("x", 256),
		"missing/file", "LOADER.CONF", "LOADER.CON"} {
		if err := one(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if err := one("loader.conf"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	if err := f.WriteFile("empty", 0, strings.NewReader("")); err == nil {
		t.Error("an empty file was accepted")
	}
	if err := f.WriteFile("short", 10, strings.NewReader("abc")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short content: %v", err)
	}
	if err := f.WriteFile("long", 2, strings.NewReader("abc")); err == nil {
		t.Error("content longer than announced was accepted")
	}
	if err := f.MkdirAll("loader.conf/x"); err == nil {
		t.Error("a directory below a file was made")
	}
	if _, err := d.FAT(esp, "lower"); err == nil {
		t.Error("a label in lower case was accepted")
	}
}

// Two names that would get one short name are found, and the volume does not pass for good.
func TestFATShortNameCollision(t *testing.T) {
	d := opened(t, rawFile(t, 1<<30))
	f, _ := newFAT(t, d, 40*mib)
	if err := f.WriteFile("a.longext", 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteFile("a.lonely", 1, strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "A.LON") {
		t.Errorf("the collision was not found: %v", err)
	}
	if err := f.Close(); err == nil {
		t.Error("the volume was completed")
	}
}

// A volume can be filled to the last cluster but one, and no further; it is whole afterwards.
func TestFATFull(t *testing.T) {
	path := rawFile(t, 1<<30)
	d := opened(t, path)
	f, esp := newFAT(t, d, 40*mib)
	g := fat.Plan(esp.Size, 512)
	free := g.Clusters - 1 // the root has one
	var full *fat.NoSpaceError
	if err := f.WriteFile("toobig", free*g.Cluster, zeros{}); !errors.As(err, &full) {
		t.Fatalf("a file of all clusters: %v", err)
	}
	b := content(1, int((free-1)*g.Cluster))
	if err := f.WriteFile("fits", int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if err := f.MkdirAll("dir"); !errors.As(err, &full) {
		t.Errorf("a directory on a full volume: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	checkedByFsck(t, espImage(t, path, esp))
	compareWithMtools(t, path, esp, map[string][]byte{"fits": b})
	next := make([]byte, mib)
	if _, err := d.ReadAt(next, esp.End()); err != nil || !bytes.Equal(next, make([]byte, mib)) {
		t.Errorf("the next partition was written to (%v)", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Close must notice content, and structure, that did not arrive on the disk.
func TestFATReadsBack(t *testing.T) {
	d := opened(t, rawFile(t, 1<<30))
	f, esp := newFAT(t, d, 512*mib)
	b := content(1, 3<<20)
	if err := f.WriteFile("vmlinuz", int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g := fat.Plan(esp.Size, 512)
	for at, c := range b[:g.Cluster] { // of the whole first cluster, which is the third
		if at%1000 == 0 {
			damage(t, d, f, esp.Start+g.DataStart+g.Cluster+int64(at), c, "vmlinuz: the content on the disk differs")
		}
	}
	if err := f.verify(); err != nil {
		t.Error(err)
	}
	secondTable := esp.Start + g.TableStart + g.TableSize
	damage(t, d, f, secondTable+4*100, 101, "tables differ")
}

// damage inverts a byte, which must be as given, for a reading that must find that.
func damage(t *testing.T, d *Disk, f *FAT, at int64, is byte, want string) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := d.ReadAt(b, at); err != nil || b[0] != is {
		t.Fatalf("byte %d is %#x, not %#x (%v)", at, b[0], is, err)
	}
	if _, err := d.WriteAt([]byte{^is}, at); err != nil {
		t.Fatal(err)
	}
	if err := f.verify(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("byte %d is damaged: %v, not %s", at, err, want)
	}
	if _, err := d.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkFATWrite80MiB(b *testing.B) {
	image := content(1, 80<<20)
	b.SetBytes(int64(len(image)))
	path := filepath.Join(b.TempDir(), "disk.raw")
	for b.Loop() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			b.Fatal(err)
		}
		if err := os.Truncate(path, 1<<30); err != nil {
			b.Fatal(err)
		}
		writeOneFAT(b, path, image)
	}
}

func writeOneFAT(b *testing.B, path string, image []byte) {
	d, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	f, err := d.FAT(Partition{Name: "esp", UUID: "00000000-0000-4000-8000-000000000000", Start: mib, Size: 512 * mib}, "ESP")
	if err != nil {
		b.Fatal(err)
	}
	if err := f.WriteFile("initramfs.img", int64(len(image)), bytes.NewReader(image)); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}
