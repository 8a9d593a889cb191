package bootable

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"installer/tests/sample"
)

const (
	version   = "6.1.0"
	vmlinuz   = "usr/lib/modules/6.1.0/vmlinuz"
	initramfs = "usr/lib/modules/6.1.0/initramfs.img"
)

// system is a tree that starts.
func system() fstest.MapFS {
	tree := fstest.MapFS{
		"sbin":                &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("usr/sbin")},
		"bin":                 &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("usr/bin")},
		"usr/sbin/init":       &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../lib/systemd/systemd")},
		"usr/lib/os-release":  &fstest.MapFile{Data: []byte("ID=lab\n"), Mode: 0o644},
		"ostree":              &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("sysroot/ostree")},
		"usr/etc/passwd":      &fstest.MapFile{Data: []byte("root:x:0:0::/root:/bin/sh\n"), Mode: 0o644},
		"usr/etc/machine-id":  &fstest.MapFile{Data: []byte("uninitialized\n"), Mode: 0o644},
		"usr/lib/ld-linux.so": &fstest.MapFile{Data: sample.Program("amd64"), Mode: 0o755},
	}
	for _, name := range []string{"sysroot", "boot", "var", "dev", "proc", "sys", "run", "tmp", "usr", "usr/etc", "usr/lib", "usr/bin"} {
		tree[name] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	}
	tree["."] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	for name, data := range sample.Files("amd64", version, []byte("more")) {
		tree[name] = &fstest.MapFile{Data: data, Mode: 0o644}
		if sample.Executable(name) {
			tree[name].Mode = 0o755
		}
	}
	return tree
}

// factsOf looks into the files of a tree.
func factsOf(t *testing.T, tree fs.FS) func(string) *Facts {
	return func(name string) *Facts {
		f, err := tree.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		facts, err := Look(name, f)
		if err != nil {
			t.Fatal(err)
		}
		return facts
	}
}

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(to)}
}

func file(mode fs.FileMode, data []byte) *fstest.MapFile {
	return &fstest.MapFile{Mode: mode, Data: data}
}

// dynamic is a program with an interpreter.
func dynamic(interpreter string) []byte {
	program := append(sample.Program("amd64"), make([]byte, 56)...)
	le := binary.LittleEndian
	le.PutUint64(program[32:], 64) // where the program headers are
	le.PutUint16(program[56:], 1)
	le.PutUint32(program[64:], 3) // PT_INTERP
	le.PutUint64(program[64+8:], uint64(len(program)))
	le.PutUint64(program[64+32:], uint64(len(interpreter)+1))
	return append(append(program, interpreter...), 0)
}

// kernelFor is a kernel of another form or architecture.
func kernelFor(arch string) []byte {
	image := sample.Kernel("amd64", version)
	switch arch {
	case "arm64":
		return sample.Kernel(arch, version)
	case "zboot":
		clear(image[0x1fe:])
		copy(image[4:], "zimg")
	case "no EFI stub":
		clear(image[:0x1fe])
	}
	return image
}

func zip(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Each change to a system that starts makes one that does not, or one that somebody may want.
func TestCheck(t *testing.T) {
	other := bytes.ReplaceAll(sample.Initramfs(nil), []byte("ostree-prepare-root"), []byte("ostree-prepare-boot"))
	arm := sample.Program("arm64")
	cases := []struct {
		name   string
		change func(tree fstest.MapFS)
		fault  string // "" is none
		note   string
	}{
		{"nothing", func(fstest.MapFS) {}, "", ""},
		{"no kernel", func(x fstest.MapFS) { delete(x, vmlinuz) }, "no kernel", ""},
		{"a directory for the mark of an update", func(x fstest.MapFS) { x["var/.updated/x"] = file(0o644, nil) }, "/var/.updated is a directory", ""},
		{"a mark of an update", func(x fstest.MapFS) { x["usr/etc/.updated"] = file(0o644, nil) }, "", ""},
		{"two kernels", func(x fstest.MapFS) { x["usr/lib/modules/6.2/vmlinuz"] = x[vmlinuz] }, "2 kernels (6.1.0, 6.2)", ""},
		{"a kernel that is a link", func(x fstest.MapFS) { x[vmlinuz] = link("../../../../boot/vmlinuz-6.1.0") },
			"vmlinuz is a symbolic link to ../../../../boot/vmlinuz-6.1.0", ""},
		{"an empty kernel", func(x fstest.MapFS) { x[vmlinuz].Data = nil }, "vmlinuz is empty", ""},
		{"no kernel at all", func(x fstest.MapFS) { x[vmlinuz].Data = []byte("a text that is no kernel") }, "no Linux kernel", ""},
		{"a kernel cut off", func(x fstest.MapFS) { x[vmlinuz].Data = sample.Kernel("amd64", version)[:0x200] }, "no Linux kernel", ""},
		{"a kernel of another architecture", func(x fstest.MapFS) { x[vmlinuz].Data = kernelFor("arm64") }, "a kernel for arm64", ""},
		{"one that is compressed", func(x fstest.MapFS) { x[vmlinuz].Data = zip(t, kernelFor("arm64")) }, "a kernel for arm64", ""},
		{"a kernel that unpacks itself", func(x fstest.MapFS) { x[vmlinuz].Data = kernelFor("zboot") }, "", ""},
		{"a kernel that firmware cannot start", func(x fstest.MapFS) { x[vmlinuz].Data = kernelFor("no EFI stub") }, "no EFI stub", ""},
		{"a kernel of another version", func(x fstest.MapFS) { x[vmlinuz].Data = sample.Kernel("amd64", "6.9") }, "", "is version 6.9"},
		{"a kernel that is a program, too", func(x fstest.MapFS) { x[vmlinuz].Mode = 0o755 }, "", ""},
		{"a version that breaks the entry", func(x fstest.MapFS) {
			for name := range x {
				if to := strings.Replace(name, "modules/6.1.0", "modules/6 2", 1); to != name {
					x[to] = x[name]
					delete(x, name)
				}
			}
		}, "cannot stand in a boot entry", "is version 6.1.0"},
		{"no modules.dep", func(x fstest.MapFS) { delete(x, "usr/lib/modules/6.1.0/modules.dep") }, "", "modules.dep is missing"},
		{"no initramfs", func(x fstest.MapFS) { delete(x, initramfs) }, "initramfs.img is missing", ""},
		{"an initramfs of the other name", func(x fstest.MapFS) {
			x["usr/lib/modules/6.1.0/initramfs"] = x[initramfs]
			delete(x, initramfs)
		}, "", ""},
		{"an initramfs that is a link", func(x fstest.MapFS) { x[initramfs] = link("initrd") }, "initramfs.img is a symbolic link to initrd", ""},
		{"an initramfs that is a directory", func(x fstest.MapFS) { x[initramfs] = file(fs.ModeDir|0o755, nil) }, "not a regular file", ""},
		{"an empty initramfs", func(x fstest.MapFS) { x[initramfs].Data = nil }, "initramfs.img is empty", ""},
		{"an initramfs that is a text", func(x fstest.MapFS) { x[initramfs].Data = []byte("initramfs\n") }, "no initramfs", ""},
		{"an initramfs of zeros", func(x fstest.MapFS) { x[initramfs].Data = make([]byte, 512) }, "no initramfs", ""},
		{"an initramfs cut off", func(x fstest.MapFS) { x[initramfs].Data = other[:len(other)-100] }, "ends in the middle", ""},
		{"an initramfs without ostree", func(x fstest.MapFS) { x[initramfs].Data = other }, "lacks ostree-prepare-root", ""},
		{"a compressed one cut off", func(x fstest.MapFS) { z := zip(t, other); x[initramfs].Data = z[:len(z)-20] }, "unpacking it as gzip", ""},
		{"a compression that is not read", func(x fstest.MapFS) { x[initramfs].Data = []byte("\x02\x21\x4c\x18 and so on") }, "", "compressed by lz4"},
		{"no first program", func(x fstest.MapFS) { delete(x, sample.Init) }, "sbin/init cannot be run", ""},
		{"systemd without a link", func(x fstest.MapFS) { delete(x, "usr/sbin/init") }, "", ""},
		{"a first program that may not be run", func(x fstest.MapFS) { x[sample.Init].Mode = 0o644 }, "no permission to execute", ""},
		{"an empty first program", func(x fstest.MapFS) { x[sample.Init].Data = nil }, "it is empty", ""},
		{"a first program that is a text", func(x fstest.MapFS) { x[sample.Init].Data = []byte("systemd") }, "neither an ELF program nor a script", ""},
		{"a first program of another architecture", func(x fstest.MapFS) { x[sample.Init].Data = arm }, "a program for arm64", ""},
		{"a program with its loader", func(x fstest.MapFS) { x[sample.Init].Data = dynamic("/usr/lib/ld-linux.so") }, "", ""},
		{"a program without its loader", func(x fstest.MapFS) { x[sample.Init].Data = dynamic("/lib64/ld-linux.so") }, "lib64/ld-linux.so cannot be run", ""},
		{"a script", func(x fstest.MapFS) { x[sample.Init].Data = []byte("#! /usr/bin/sh -e\nexit\n") }, "", ""},
		{"a script of itself", func(x fstest.MapFS) { x[sample.Init].Data = []byte("#!/usr/lib/systemd/systemd\n") }, "more than 4 interpreters", ""},
		{"no mount point", func(x fstest.MapFS) { delete(x, "proc") }, "/proc is not a directory", ""},
		{"no link to the repository", func(x fstest.MapFS) { delete(x, "ostree") }, "/ostree is not a link", ""},
		{"another link", func(x fstest.MapFS) { x["ostree"] = link("/ostree") }, "/ostree is not a link", ""},
		{"no configuration", func(x fstest.MapFS) {
			delete(x, "usr/etc")
			delete(x, "usr/etc/passwd")
			delete(x, "usr/etc/machine-id")
		}, "/etc is missing", "nobody can log in"},
		{"a root that only root passes", func(x fstest.MapFS) { x["."].Mode = fs.ModeDir | 0o700 }, "/ has mode 0700", ""},
		{"programs that only root finds", func(x fstest.MapFS) { x["usr/bin"].Mode = fs.ModeDir | 0o750 }, "/usr/bin has mode 0750", ""},
		{"no name", func(x fstest.MapFS) { delete(x, "usr/lib/os-release") }, "/usr/lib/os-release is missing", ""},
		{"a name that leads nowhere", func(x fstest.MapFS) { x["usr/lib/os-release"] = link("nowhere") }, "/usr/lib/os-release is missing", ""},
		{"an empty name", func(x fstest.MapFS) { x["usr/lib/os-release"].Data = []byte("ID=\n") }, "neither PRETTY_NAME nor ID", ""},
		{"no updater", func(x fstest.MapFS) { delete(x, "usr/bin/bootc") }, "", "cannot update itself"},
		{"a machine ID", func(x fstest.MapFS) { x["usr/etc/machine-id"].Data = []byte(strings.Repeat("0", 32) + "\n") }, "", "same machine ID"},
	}
	for _, c := range cases {
		tree := system()
		c.change(tree)
		notes, err := Check(tree, Options{Arch: "amd64", EFIStub: true, Facts: factsOf(t, tree)})
		if refused := (*Error)(nil); (err != nil) != (c.fault != "") || err != nil && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.fault)
		}
		if len(notes) == 0 != (c.note == "") || len(notes) > 0 && !strings.Contains(notes[0].String(), c.note) {
			t.Errorf("%s: notes %v; want one that says %q", c.name, notes, c.note)
		}
	}
}

// TestOwnBoot has faults that only a start meets: notes for one who starts the system in another way.
func TestOwnBoot(t *testing.T) {
	for name, c := range map[string]struct {
		change func(tree fstest.MapFS)
		note   string // "" is a fault in either case
	}{
		"no initramfs":              {func(x fstest.MapFS) { delete(x, initramfs) }, "initramfs.img is missing"},
		"a broken initramfs":        {func(x fstest.MapFS) { x[initramfs].Data = []byte("initramfs\n") }, "no initramfs"},
		"no first program":          {func(x fstest.MapFS) { delete(x, sample.Init) }, "sbin/init cannot be run"},
		"no kernel":                 {func(x fstest.MapFS) { delete(x, vmlinuz) }, ""},
		"no link to the repository": {func(x fstest.MapFS) { delete(x, "ostree") }, ""},
	} {
		tree := system()
		c.change(tree)
		if _, err := Check(tree, Options{Arch: "amd64", Facts: factsOf(t, tree)}); err == nil {
			t.Errorf("%s: no fault where a boot loader is installed", name)
		}
		notes, err := Check(tree, Options{Arch: "amd64", OwnBoot: true, Facts: factsOf(t, tree)})
		if (err == nil) != (c.note != "") {
			t.Errorf("%s: error %v, want a note %q", name, err, c.note)
		}
		if c.note != "" && (len(notes) != 1 || !strings.Contains(notes[0].String(), c.note)) {
			t.Errorf("%s: notes %v, want %q", name, notes, c.note)
		}
	}
}

// large is a tree with files of a size that is none.
type large struct {
	fstest.MapFS
	sizes map[string]int64
}

func (l large) Stat(name string) (fs.FileInfo, error) {
	info, err := l.MapFS.Stat(name)
	if size, ok := l.sizes[name]; ok {
		return sized{info, size}, err
	}
	return info, err
}

type sized struct {
	fs.FileInfo
	size int64
}

func (s sized) Size() int64 { return s.size }

// No file is read without a bound.
func TestBounds(t *testing.T) {
	for _, name := range []string{vmlinuz, initramfs} {
		tree := large{system(), map[string]int64{name: 3 << 30}}
		if _, err := Check(tree, Options{Arch: "amd64"}); err == nil || !strings.Contains(err.Error(), name+" has 3221225472 bytes") {
			t.Errorf("%s of 3 GiB: %v", name, err)
		}
	}
}

// A file that nobody could look into is no fault, and is said to be unknown.
func TestUnknown(t *testing.T) {
	notes, err := Check(system(), Options{Arch: "amd64"})
	if err != nil || len(notes) != 3 {
		t.Errorf("%v, notes %v", err, notes)
	}
}

// TestInitramfs has archives made and compressed by the programs that make them on hosts.
func TestInitramfs(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib/ostree"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("some content "), 10_000)
	for name, data := range map[string][]byte{"a": big, "usr/lib/ostree/ostree-prepare-root": sample.Program("amd64"), "z": big} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	early := run(t, dir, nil, "sh", "-c", "echo a | cpio -o -H newc --quiet")
	archive := run(t, dir, nil, "sh", "-c", "find . | sort | cpio -o -H newc --quiet")
	other := run(t, dir, nil, "sh", "-c", "find . ! -name '*prepare-root' | cpio -o -H newc --quiet")
	frames, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, pack := range map[string]func([]byte) []byte{
		"cpio":  func(b []byte) []byte { return b },
		"gzip":  func(b []byte) []byte { return run(t, dir, b, "gzip", "-c") },
		"xz":    func(b []byte) []byte { return run(t, dir, b, "xz", "-c", "--check=crc32") },
		"lzma":  func(b []byte) []byte { return run(t, dir, b, "xz", "-c", "--format=lzma") },
		"bzip2": func(b []byte) []byte { return run(t, dir, b, "bzip2", "-c") },
		"zstd":  func(b []byte) []byte { return frames.EncodeAll(b, nil) },
	} {
		for _, c := range []struct {
			name   string
			data   []byte
			format string
			found  bool
		}{
			{"alone", pack(archive), name, true},
			{"after microcode", append(bytes.Clone(early), pack(archive)...), name, true},
			{"without ostree", append(append(bytes.Clone(early), make([]byte, 512)...), pack(other)...), name, false},
			{"after another of its kind", append(pack(other), run(t, dir, archive, "gzip", "-c")...), "gzip", name == "gzip" || name == "cpio"},
		} {
			f, err := Look(initramfs, bytes.NewReader(c.data))
			searched := c.name != "after another of its kind" || c.found
			if err != nil || f.Problem != "" || f.PrepareRoot != c.found || f.Searched != searched || searched && f.Initramfs != c.format {
				t.Errorf("%s, %s: %+v, %v; want found %v", name, c.name, *f, err, c.found)
			}
		}
	}
}

func run(t *testing.T, dir string, input []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	return out
}

// An error of the source is not a fault of the content.
func TestReadError(t *testing.T) {
	boom := errors.New("boom")
	for _, name := range []string{vmlinuz, initramfs, "usr/bin/x"} {
		r := io.MultiReader(bytes.NewReader(sample.Initramfs(nil)[:100]), iotest.ErrReader(boom))
		if _, err := Look(name, r); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLooker(t *testing.T) {
	for name, want := range map[string]bool{
		"./usr/lib/modules/6/vmlinuz": true, "lib/modules/6/initramfs.img": true, "usr/lib/modules/6/config": false,
		"boot/vmlinuz-6": true, "boot/initrd.img-6": true, "boot/config": false, "vmlinuz": false,
	} {
		if got := Looker(name, 0o644) != nil; got != want {
			t.Errorf("%s is looked into: %v", name, got)
		}
	}
	if Looker("usr/bin/x", 0o755) == nil {
		t.Error("a program is not looked into")
	}
}

// FuzzLook reads whatever comes without a panic.
func FuzzLook(f *testing.F) {
	f.Add(sample.Kernel("amd64", version))
	f.Add(sample.Initramfs(nil))
	f.Add(dynamic("/lib/ld.so"))
	f.Add([]byte("#!/bin/sh\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{vmlinuz, initramfs, "usr/bin/x"} {
			if _, err := Look(name, bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
		}
	})
}
