package xattr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const anyone = aclNoID

func words(n ...uint32) (b []byte) {
	for _, w := range n {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// Lists: one that says no more than a mode, one that names a user, one without entries.
var (
	minimal = encodeACL([]aclEntry{{aclUserObj, 6, 0}, {aclGroupObj, 4, 7}, {aclOther, 1, anyone}})
	named   = encodeACL([]aclEntry{{aclUserObj, 6, anyone}, {aclUser, 6, 1000}, {aclGroupObj, 4, 5}, {aclMask, 2, 0}, {aclOther, 4, anyone}})
	nothing = encodeACL(nil)
)

// cases are attributes of every kind that an image can ask for.
var cases = []Attr{
	{"user.a", []byte("1")}, {"user.", []byte("1")}, {"user", []byte("1")}, {"USER.a", []byte("1")}, {"user.a\n", []byte("1")},
	{"com.apple.provenance", []byte("1")}, {"plain", []byte("1")}, {"afs.x", []byte("1")},
	{"system.nfs4_acl", []byte("1")}, {"system.data", []byte("1")}, {"system.posix_acl_access.x", minimal},
	{"trusted.a", []byte("1")}, {"trusted.", []byte("1")}, {"trusted.overlay.opaque", []byte("y")}, {"user.overlay.opaque", []byte("y")},
	{"security.ima", []byte("1")}, {"security.evm", []byte("1")}, {"security.a", []byte("1")}, {"security.", []byte("1")},
	{Capability, words(capRevision2|1, 1, 0, 0, 0)}, {Capability, words(capRevision2, 0, 0, 0, 0)}, {Capability, words(capRevision2|2, 1, 0, 0, 0)},
	{Capability, words(capRevision3|1, 1, 2, 3, 4, 0)}, {Capability, words(capRevision3, 1, 2, 3, 4, 1000)}, {Capability, words(capRevision3, 1, 0, 0, 0)},
	{Capability, words(0x01000001, 1, 0)}, {Capability, []byte("x")}, {Capability, words(capRevision2|1, 1, 0, 0, 0, 0)}, {Capability, words(0x04000001, 1, 0, 0, 0)},
	{ACLAccess, minimal}, {ACLAccess, named}, {ACLAccess, nothing}, {ACLAccess, named[:len(named)-8]}, {ACLAccess, []byte("abc")}, {ACLAccess, append([]byte{3}, named[1:]...)},
	{ACLDefault, minimal}, {ACLDefault, named}, {ACLDefault, nothing}, {ACLDefault, []byte("abc")}, {ACLDefault, named[:len(named)-3]},
	{strings.Repeat("user.", 52)[:255], []byte("1")}, {"user." + strings.Repeat("x", 251), []byte("1")},
}

// The kernel is the judge of the attributes that it takes, and shows afterwards.
func TestCanonicalIsWhatFileSystemsShow(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			dir := mountImage(t, fs)
			for i, c := range cases {
				for kind, mode := range map[string]uint32{"file": unix.S_IFREG | 0o4750, "directory": modeDir | 0o2750, "link": modeSymlink | 0o777} {
					path := fmt.Sprintf("%s/%s%d", dir, kind, i)
					make1(t, path, mode)
					compare(t, fmt.Sprintf("%.60q of %d bytes, %s", c.Name, len(c.Value), kind), fs, path, mode, c)
				}
			}
		})
	}
}

// compare sets an attribute and compares the answer and the file with the judgement.
func compare(t *testing.T, what, fs, path string, mode uint32, c Attr) {
	t.Helper()
	want, wantMode, dropped, refused := Canonical(mode, []Attr{c})
	if fs == "xfs" {
		want = OnXFS(want)
	}
	err := unix.Lsetxattr(path, c.Name, c.Value, 0)
	if (err == unix.EOPNOTSUPP) != (len(dropped) == 1) || (err != nil && err != unix.EOPNOTSUPP) != (refused != nil) {
		t.Errorf("%s: the kernel says %v; dropped %v, refused: %v", what, err, dropped, refused)
		return
	}
	if err != nil {
		return
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if got := attrsOf(t, path); !same(got, want) || st.Mode != wantMode {
		t.Errorf("%s: the file has mode %#o and %q; expected %#o and %q", what, st.Mode, got, wantMode, want)
	}
	if name, equal := Equal(attrsOf(t, path), want); !equal {
		t.Errorf("%s: %s differs", what, name)
	}
}

// The largest attribute that fits, and one byte more.
func TestRoomIsThatOfFileSystems(t *testing.T) {
	for fs, most := range map[string]int{"xfs": 65536, "ext4": 4040, "btrfs": 16228 - len("user.x")} {
		t.Run(fs, func(t *testing.T) {
			path := filepath.Join(mountImage(t, fs), "f")
			for _, size := range []int{most, most + 1} {
				make1(t, path, unix.S_IFREG|0o644)
				attrs := []Attr{{"user.x", make([]byte, size)}}
				_, _, _, tooLarge := Canonical(unix.S_IFREG, attrs)
				fits := errors.Join(tooLarge, RoomOf(fs, 0).Check(attrs))
				if err := unix.Setxattr(path, "user.x", attrs[0].Value, 0); (err == nil) != (fits == nil) || (err == nil) != (size == most) {
					t.Errorf("%d bytes: the kernel says %v, the check %v", size, err, fits)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			var many []Attr
			for i := range 600 {
				many = append(many, Attr{fmt.Sprintf("user.%0250d", i), []byte("v")})
			}
			if err := RoomOf(fs, 0).Check(many); err == nil {
				t.Error("a list of names that no program can read is accepted")
			}
		})
	}
	if err := RoomOf("ext4", 1024).Check([]Attr{{"user.x", make([]byte, 2000)}}); err == nil {
		t.Error("2000 bytes are accepted for a block of 1024")
	}
	long := Attr{ACLAccess, make([]byte, 4+8*5462)}
	if RoomOf("xfs", 0).Check([]Attr{long}) == nil || RoomOf("xfs", 0).Check([]Attr{{ACLAccess, long.Value[8:]}}) != nil {
		t.Error("the bound on the entries of an access control list is not XFS's")
	}
}

func TestListsOfAttributes(t *testing.T) {
	in := []Attr{{"user.b", []byte("2")}, {"user.a", []byte("1")}, {"user.empty", nil}, {"com.apple.x", []byte("1")}}
	out, _, dropped, err := Canonical(unix.S_IFREG, in)
	if err != nil || fmt.Sprint(dropped) != "[com.apple.x]" || !same(out, []Attr{{"user.a", []byte("1")}, {"user.b", []byte("2")}}) {
		t.Errorf("%q, dropped %q, %v", out, dropped, err)
	}
	if _, _, _, err := Canonical(unix.S_IFREG, append(in, in[0])); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("an attribute that occurs twice: %v", err)
	}
	v3 := []Attr{{Capability, words(capRevision3|1, 1, 0, 0, 0, 0)}}
	v2 := []Attr{{Capability, words(capRevision2|1, 1, 0, 0, 0)}}
	if name, equal := Equal(v3, v2); !equal {
		t.Errorf("%s of two revisions differs", name)
	}
	for _, other := range [][]Attr{nil, {{"security.a", []byte("1")}}, {{Capability, words(capRevision2, 1, 0, 0, 0)}}, append(v2, Attr{"user.a", []byte("1")})} {
		if _, equal := Equal(other, v2); equal {
			t.Errorf("%q passes for %q", other, v2)
		}
	}
}

func make1(t *testing.T, path string, mode uint32) {
	t.Helper()
	var err error
	switch mode & modeType {
	case modeDir:
		err = unix.Mkdir(path, 0o700)
	case modeSymlink:
		err = unix.Symlink("target", path)
	default:
		err = os.WriteFile(path, nil, 0o600)
	}
	if err == nil && mode&modeType != modeSymlink {
		err = unix.Chmod(path, mode&0o7777)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// attrsOf reads all attributes in the order of their names.
func attrsOf(t *testing.T, path string) (attrs []Attr) {
	t.Helper()
	list, value := make([]byte, maxList), make([]byte, maxValue)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		attrs = append(attrs, Attr{name, append([]byte{}, value[:n]...)})
	}
	return attrs
}

// same compares two lists in any order.
func same(a, b []Attr) bool {
	values := map[string]string{}
	for _, x := range a {
		values[x.Name] = string(x.Value)
	}
	for _, x := range b {
		if v, ok := values[x.Name]; !ok || v != string(x.Value) {
			return false
		}
	}
	return len(a) == len(b)
}

// mountImage mounts a new file system until the test ends.
func mountImage(t *testing.T, fs string) string {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	for _, argv := range [][]string{{"truncate", "-s", "512M", image}, {"mkfs." + fs, "-q", image}, {"mkdir", at}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return at
}

// An object's attributes must be those that its file shows. XFS shows an access control list twice.
func TestShownAsInAnObject(t *testing.T) {
	list, mode, _, err := Canonical(unix.S_IFREG|0o4750, []Attr{{ACLAccess, named}})
	if err != nil {
		t.Fatal(err)
	}
	label := Attr{SELinux, []byte("label\x00")}
	onExt4 := append([]Attr{label}, list...)
	onXFS := OnXFS(onExt4)
	for _, c := range []struct {
		fs    string
		attrs []Attr
		shows bool
	}{
		{"ext4", nil, true}, {"xfs", []Attr{label}, true}, {"ext4", onExt4, true}, {"ext4", onXFS, false},
		{"xfs", onXFS, true}, {"xfs", onExt4, false}, {"ext4", []Attr{label, {"user.x", nil}}, false},
	} {
		if err := RoomOf(c.fs, 0).Shows(mode, c.attrs); (err == nil) != c.shows {
			t.Errorf("%s shows %d attributes: %v, want %v", c.fs, len(c.attrs), err, c.shows)
		}
	}
}
