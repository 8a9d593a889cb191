package outfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A file is recognised under every name that leads to it, and so is one that is yet to be made.
func TestGuardKnowsEverySpelling(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string) {
		must(t, os.MkdirAll(filepath.Dir(in(name)), 0o755))
		must(t, os.WriteFile(in(name), nil, 0o600))
	}
	write("disk.raw")
	write("image/blobs/sha256/abc")
	write("bystander/report.json")
	must(t, os.Link(in("disk.raw"), in("hard")))
	must(t, os.Symlink("disk.raw", in("soft")))
	must(t, os.Symlink("soft", in("chain")))
	must(t, os.Symlink(".", in("here")))
	must(t, os.Symlink("new.qcow2", in("dangling")))
	must(t, os.Symlink("image/blobs", in("blobs")))
	must(t, os.Link(in("image/blobs/sha256/abc"), in("inside-too")))
	must(t, unix.Mknod(in("node"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 255))))
	must(t, unix.Mknod(in("same-node"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 255))))
	must(t, os.Mkdir(in("bind"), 0o755))
	bind(t, in("image/blobs"), in("bind"))
	write("bound-file")
	bind(t, in("disk.raw"), in("bound-file"))

	g := NewGuard()
	must(t, g.AddFile("the target", in("disk.raw")))
	must(t, g.AddFile("the device", in("node")))
	must(t, g.AddFile("the output", in("new.qcow2")))
	must(t, g.AddFile("nothing", ""))
	must(t, g.AddFile("nothing", in("no/such/directory")))
	must(t, g.AddTree("the source", in("image")))
	must(t, g.AddTree("nothing", in("none")))
	for name, want := range map[string]string{
		"disk.raw": "the target", "hard": "the target", "soft": "the target", "chain": "the target",
		"here/disk.raw": "the target", "bystander/../disk.raw": "the target", "bound-file": "the target",
		"node": "the device", "same-node": "the device",
		"new.qcow2": "the output", "here/here/new.qcow2": "the output", "dangling": "the output",
		"image/new": "the source", "image/blobs/sha256/abc": "the source", "image/blobs/sha256/new": "the source",
		"blobs/new": "the source", "blobs/sha256/new": "the source", "bind/new": "the source", "bind/sha256/new": "the source",
		"bystander/report.json": "", "bystander/new": "", "new.json": "",
	} {
		err := g.Check(in(name))
		protected := (*ProtectedError)(nil)
		if errors.As(err, &protected) != (want != "") || want == "" && err != nil || want != "" && protected.Role != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if _, err := Open(in(name), Options{Guard: g, Streams: true}); want != "" && !errors.As(err, &protected) {
			t.Errorf("%s is opened: %v", name, err)
		}
	}
	t.Chdir(dir)
	if err := g.Check("disk.raw"); err == nil {
		t.Error("a relative path is not recognised")
	}
}

// A file system is recognised wherever it is mounted.
func TestGuardKnowsTheFilesystem(t *testing.T) {
	root, copied, other := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root, 0)) })
	must(t, os.Mkdir(filepath.Join(root, "sub"), 0o755))
	bind(t, filepath.Join(root, "sub"), copied)
	g := NewGuard()
	must(t, g.AddFilesystem("the target", root))
	for path, want := range map[string]bool{root: true, root + "/sub": true, copied: true, other: false} {
		if err := g.Check(filepath.Join(path, "report.json")); (err != nil) != want {
			t.Errorf("%s: %v, want refusal %t", path, err, want)
		}
	}
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(to, 0)) })
}

// Only an earlier output and an empty file are replaced.
func TestForeignFileIsKept(t *testing.T) {
	dir := t.TempDir()
	mine := func(content []byte) bool { return bytes.HasPrefix(content, []byte("mine")) }
	for content, want := range map[string]bool{"": true, "mine, earlier": true, "notes": false} {
		path := filepath.Join(dir, "report")
		must(t, os.WriteFile(path, []byte(content), 0o600))
		err := Write(path, []byte("mine, new"), Options{Mine: mine})
		if foreign := (*ForeignError)(nil); errors.As(err, &foreign) == want || (err == nil) != want {
			t.Errorf("%q: %v", content, err)
		}
		if got, err := os.ReadFile(path); err != nil || (string(got) == "mine, new") != want {
			t.Errorf("%q became %q, %v", content, got, err)
		}
	}
	huge := filepath.Join(dir, "huge")
	must(t, os.WriteFile(huge, []byte("mine"), 0o600))
	must(t, os.Truncate(huge, maxEarlier+1))
	if err := Write(huge, nil, Options{Mine: mine}); err == nil {
		t.Error("a huge file was replaced")
	}
}

// A file that is replaced hands on its mode and owner.
func TestModeAndOwnerStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	must(t, os.Chown(path, 1234, 4321))
	must(t, os.Chmod(path, 0o640|os.ModeSetgid))
	must(t, Write(path, []byte("new"), Options{}))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o7777 != 0o2640 {
		t.Errorf("owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
}

// The place is settled when the file is opened: neither the working directory nor a link that
// appears later moves it.
func TestPlaceIsSettledEarly(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	t.Chdir(dir)
	f, err := Open("report", Options{})
	must(t, err)
	defer f.Close()
	must(t, os.Symlink(filepath.Join(elsewhere, "stolen"), filepath.Join(dir, "report")))
	t.Chdir("/")
	must(t, os.Rename(dir, dir+"-moved"))
	t.Cleanup(func() { os.Rename(dir+"-moved", dir) })
	must(t, f.Commit())
	if info, err := os.Lstat(filepath.Join(dir+"-moved", "report")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file is not in its directory: %v", err)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 0 {
		t.Errorf("elsewhere is %v, %v", left, err)
	}
}

// A file that rename(2) would refuse to replace at the end is refused at the begin.
func TestImmutableIsRefusedEarly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	must(t, os.WriteFile(path, nil, 0o600))
	setImmutable(t, path, true)
	t.Cleanup(func() { setImmutable(t, path, false) })
	if _, err := Create(path); !errors.Is(err, unix.EPERM) {
		t.Errorf("an immutable file: %v", err)
	}
}

func setImmutable(t *testing.T, path string, on bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	must(t, err)
	flags &^= 0x10
	if on {
		flags |= 0x10
	}
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)))
}

// A descriptor of this process is written to where it stands.
func TestOwnDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	must(t, err)
	defer log.Close()
	_, err = log.WriteString("before\n")
	must(t, err)
	must(t, Write("/proc/self/fd/"+strconv.Itoa(int(log.Fd())), []byte("report\n"), Options{Streams: true}))
	must(t, Write("/dev/fd/"+strconv.Itoa(int(log.Fd())), []byte("again\n"), Options{Streams: true}))
	if got, err := os.ReadFile(path); err != nil || string(got) != "before\nreport\nagain\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Open("/proc/1/fd/0", Options{Streams: true}); !errors.Is(err, ErrNotRegular) {
		t.Errorf("another process's descriptor: %v", err)
	}
}
