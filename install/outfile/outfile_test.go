package outfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAppearsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, named := range []bool{false, true} {
		dropped := openTest(t, path, named)
		if err := dropped.Close(); err != nil {
			t.Fatal(err)
		}
		only(t, dir, "disk.raw")
		o := openTest(t, path, named)
		if _, err := o.WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) == "new" {
			t.Errorf("before it is complete the file is %q, %v", data, err)
		}
		if err := errors.Join(o.Commit(), o.Close()); err != nil {
			t.Fatal(err)
		}
		only(t, dir, "disk.raw")
		if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
			t.Errorf("the file is %q, %v", data, err)
		}
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// openTest opens an output, with a name of its own if named is set.
func openTest(t *testing.T, path string, named bool) *File {
	t.Helper()
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if named {
		o.File.Close()
		if err := o.openNamed(); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func only(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory has %v, %v; want %s alone", entries, err, name)
	}
}

// Where files need names, the file of a killed process is used again, and the file
// of a running one is not.
func TestNamedIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	o := openTest(t, path, true)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), o.partial), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := resolve(path)
	must(t, err)
	other := &File{place: p, partial: o.partial}
	if err := other.openNamed(); err == nil {
		t.Error("two write the same file")
	}
	o.File.Close() // as if it had been killed
	if err := other.openNamed(); err != nil {
		t.Fatal(err)
	}
	if info, err := other.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the content of the killed process is still there: %v, %v", info, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func TestLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	link, path := filepath.Join(dir, "link"), filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	must(t, os.Symlink(path, link))
	must(t, Write(link, []byte("new"), Options{}))
	only(t, dir, "link")
	if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
		t.Errorf("the file is %q, %v", data, err)
	}
}

// A pipe or a terminal is written to, and not replaced.
func TestWriteIntoPipe(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pipe")
	must(t, unix.Mkfifo(path, 0o600))
	written := make(chan error, 1)
	go func() { written <- Write(path, []byte("new"), Options{Streams: true}) }()
	pipe, err := os.Open(path)
	must(t, err)
	defer pipe.Close()
	if data, err := io.ReadAll(pipe); err != nil || string(data) != "new" {
		t.Errorf("read %q, %v", data, err)
	}
	must(t, <-written)
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("%v, %v", info, err)
	}
	only(t, dir, "pipe")
}

func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"/dev/null", dir, dir + "/", dir + "/.", dir + "/new/", ""} {
		if _, err := Create(path); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
	disk := filepath.Join(dir, "disk")
	must(t, unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 255))))
	for _, path := range []string{dir, disk} {
		if _, err := Open(path, Options{Streams: true}); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestScratchHasNoName(t *testing.T) {
	dir := t.TempDir()
	f, err := Scratch(dir)
	must(t, err)
	defer f.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
