package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func qemuImgRun(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

// A disk that has QEMU read another file is refused before any program reads it, however it refers
// to that file.
func TestReferences(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	qemuImgRun(t, "create", "-q", "-f", "qcow2", at("base.qcow2"), "8M")
	qemuImgRun(t, "create", "-q", "-f", "raw", at("secret"), "8M")
	if err := os.WriteFile(at("secret"), append([]byte("secret"), make([]byte, 8<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	create := func(name string, args ...string) string {
		qemuImgRun(t, append(append([]string{"create", "-q", "-u", "-f", "qcow2"}, args...), at(name), "8M")...)
		return at(name)
	}
	relative := create("relative", "-b", "base.qcow2", "-F", "qcow2")
	middle := create("middle", "-b", relative, "-F", "qcow2")
	data := at("data")
	qemuImgRun(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+at("data.raw"), data, "8M")
	for _, c := range []struct {
		name    string
		disk    string
		allowed []string
		refused bool
	}{
		{"no reference", at("base.qcow2"), nil, false},
		{"a raw file", create("raw", "-b", at("secret"), "-F", "raw"), nil, true},
		{"a raw file that is named", at("raw"), []string{at("secret")}, false},
		{"a format to be guessed", create("guess", "-b", at("secret"), "-F", "raw", "-o", "compat=0.10"), nil, true},
		{"a relative path", relative, nil, true},
		{"a relative path that is named", relative, []string{at("base.qcow2")}, false},
		{"another file is named", relative, []string{at("secret")}, true},
		{"a chain of which one is named", middle, []string{relative}, true},
		{"a chain of which all are named", middle, []string{relative, at("base.qcow2")}, false},
		{"a file that is not there", create("gone", "-b", "gone-too", "-F", "qcow2"), []string{at("gone-too")}, true},
		{"a URL", create("url", "-b", "nbd://localhost:1/x", "-F", "raw"), nil, true},
		{"a description", create("json", "-b", `json:{"driver":"file","filename":"`+at("secret")+`"}`, "-F", "raw"), []string{at("secret")}, true},
		{"another format", create("vmdk", "-b", at("secret"), "-F", "vmdk"), []string{at("secret")}, true},
		{"an external data file", data, nil, true},
		{"an external data file that is named", data, []string{at("data.raw")}, false},
	} {
		report, err := Run(context.Background(), Options{Disk: c.disk, BackingFiles: c.allowed, TempDir: dir, NoRoot: "the test does not mount"})
		refused := (*ReferenceError)(nil)
		if errors.As(err, &refused) != c.refused || (report == nil) != c.refused || err != nil && !c.refused {
			t.Errorf("%s: %v; want refused %v", c.name, err, c.refused)
		}
		if report != nil && slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Check == "image-file" }) {
			t.Errorf("%s: %v", c.name, report.Findings)
		}
	}
	source, err := openSource(context.Background(), at("raw"), Options{TempDir: dir, BackingFiles: []string{at("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	head := make([]byte, 6)
	if _, err := source.file.ReadAt(head, 0); err != nil || string(head) != "secret" {
		t.Errorf("a disk with a backing file begins with %q, %v", head, err)
	}
}

// A disk in another container is not taken for a raw one that is damaged.
func TestForeignFormats(t *testing.T) {
	for _, format := range []string{"vmdk", "vdi", "vhdx", "qed", "parallels", "vpc"} {
		path := filepath.Join(t.TempDir(), "disk")
		qemuImgRun(t, "create", "-q", "-f", format, path, "8M")
		_, err := Run(context.Background(), Options{Disk: path, NoRoot: "the test does not mount"})
		if refused := (*FormatError)(nil); !errors.As(err, &refused) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// No size in a header is believed.
func TestQcow2Header(t *testing.T) {
	good := make([]byte, 512)
	be := binary.BigEndian
	copy(good, qcow2Magic)
	be.PutUint32(good[qcow2Version:], 3)
	be.PutUint64(good[qcow2Size:], 1<<20)
	be.PutUint32(good[qcow2Length:], qcow2HeaderV3)
	if h, err := readQcow2Header(bytes.NewReader(good)); err != nil || h.size != 1<<20 || len(h.references()) > 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	for want, change := range map[string]func([]byte) []byte{
		"cut off":            func(b []byte) []byte { return b[:100] },
		"version 1":          func(b []byte) []byte { be.PutUint32(b[qcow2Version:], 1); return b },
		"encrypted":          func(b []byte) []byte { be.PutUint32(b[qcow2Crypt:], 1); return b },
		"does not say which": func(b []byte) []byte { be.PutUint64(b[qcow2BackingAt:], 400); return b },
		"extension of its header": func(b []byte) []byte {
			be.PutUint32(b[qcow2HeaderV3:], 7)
			be.PutUint32(b[qcow2HeaderV3+4:], 1<<31)
			return b
		},
	} {
		if _, err := readQcow2Header(bytes.NewReader(change(bytes.Clone(good)))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzQcow2Header(f *testing.F) {
	f.Add([]byte(qcow2Magic), uint64(200), uint32(10))
	f.Fuzz(func(t *testing.T, rest []byte, at uint64, size uint32) {
		b := append(bytes.Repeat([]byte{0}, 200), rest...)
		copy(b, qcow2Magic)
		binary.BigEndian.PutUint32(b[qcow2Version:], 2+size%2)
		binary.BigEndian.PutUint64(b[qcow2BackingAt:], at)
		binary.BigEndian.PutUint32(b[qcow2BackingSize:], size)
		h, err := readQcow2Header(bytes.NewReader(b))
		if err == nil && len(h.backing) > longestReference {
			t.Errorf("%d bytes of a name", len(h.backing))
		}
	})
}
