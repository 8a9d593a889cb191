package ostree

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/rootfs/xattr"
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// Tags of <linux/posix_acl.h>.
const (
	owner, user, owningGroup, group, mask, others = 1, 2, 4, 8, 16, 32
	noOne                                         = ^uint32(0)
)

func aclAttr(name string, entries ...aclEntry) Xattr {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return Xattr{Name: name, Value: b}
}

// capability3 is a file capability of revision 3, of user 0.
func capability3() Xattr {
	return Xattr{Name: "security.capability", Value: []byte{1, 0, 0, 3, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
}

// oddFiles are files whose attributes read back in another form than they were set in: lists that
// add to the mode, that are no more than a mode, that contradict it, and a capability.
func oddFiles() map[string]FileHeader {
	named := aclAttr(xattr.ACLAccess, aclEntry{owner, 6, noOne}, aclEntry{user, 6, 1000}, aclEntry{owningGroup, 4, noOne}, aclEntry{group, 1, 7}, aclEntry{mask, 6, noOne}, aclEntry{others, 4, noOne})
	plain := aclAttr(xattr.ACLAccess, aclEntry{owner, 7, 0}, aclEntry{owningGroup, 5, 0}, aclEntry{others, 1, 0})
	masked := aclAttr(xattr.ACLAccess, aclEntry{owner, 7, 0}, aclEntry{owningGroup, 5, 0}, aclEntry{mask, 2, 0}, aclEntry{others, 1, 0})
	other := Xattr{Name: "user.z", Value: []byte("z")}
	return map[string]FileHeader{
		"named":           {Mode: modeRegular | 0o664, Xattrs: []Xattr{named, other}},
		"named, no mode":  {Mode: modeRegular | 0o4000, Xattrs: []Xattr{named}},
		"plain":           {Mode: modeRegular | 0o751, Xattrs: []Xattr{plain, other}},
		"plain, no mode":  {Mode: modeRegular | 0o2600, Xattrs: []Xattr{plain}},
		"mask alone":      {Mode: modeRegular | 0o640, Xattrs: []Xattr{masked}},
		"capability":      {Mode: modeRegular | 0o755, Xattrs: []Xattr{capability3()}},
		"link":            {Mode: modeSymlink | 0o777, Target: "x", Xattrs: []Xattr{{Name: "trusted.a", Value: []byte("1")}}},
		"no mode, others": {Mode: modeRegular, Xattrs: []Xattr{other, named, capability3()}},
	}
}

// An object must have the attributes that the file system shows, or ostree calls it corrupt.
func TestAttributesOnEachFileSystem(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			repo := createRepoIn(t, mountImage(t, fs))
			if repo.folders.xfs != (fs == "xfs") {
				t.Errorf("XFS: %v", repo.folders.xfs)
			}
			for name, h := range oddFiles() {
				size := int64(len(name))
				if h.IsSymlink() {
					size = 0
				}
				sum, err := repo.WriteContent(t.Context(), h, size, strings.NewReader(name))
				if err != nil {
					t.Fatal(err)
				}
				if err := repo.objects.verifyFile(t.Context(), sum); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				shown := headerOf(t, objectPath(repo, sum))
				if got := strings.TrimSpace(run(t, "ostree", "checksum", objectPath(repo, sum))); got != sum.String() {
					t.Errorf("%s: ostree reads %s from %+v, the object is %s", name, got, shown, sum)
				}
			}
		})
	}
}

// The same for directories, whose metadata stands in an object of its own.
func TestAttributesOfDirectories(t *testing.T) {
	named := []aclEntry{{owner, 7, noOne}, {user, 7, 1000}, {owningGroup, 5, noOne}, {mask, 7, noOne}, {others, 0, noOne}}
	metas := map[string]DirMeta{
		"access":     {Mode: modeDirectory | 0o700, Xattrs: []Xattr{aclAttr(xattr.ACLAccess, named...)}},
		"both":       {Mode: modeDirectory | 0o2755, Xattrs: []Xattr{aclAttr(xattr.ACLDefault, named...), aclAttr(xattr.ACLAccess, named...)}},
		"default":    {Mode: modeDirectory | 0o1755, Xattrs: []Xattr{aclAttr(xattr.ACLDefault, named...)}},
		"mode alone": {Mode: modeDirectory | 0o711, Xattrs: []Xattr{aclAttr(xattr.ACLAccess, aclEntry{owner, 7, 0}, aclEntry{owningGroup, 5, 0}, aclEntry{others, 5, 0})}},
		"capability": {Mode: modeDirectory | 0o755, UID: 5, Xattrs: []Xattr{capability3(), {Name: "user.z", Value: []byte("z")}}},
	}
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			repo := createRepoIn(t, mountImage(t, fs))
			empty, err := repo.WriteDirTree(DirTree{})
			if err != nil {
				t.Fatal(err)
			}
			for name, m := range metas {
				sum, err := repo.WriteDirMeta(m)
				if err != nil {
					t.Fatal(err)
				}
				commit, err := repo.WriteCommit(Commit{Tree: empty, Meta: sum})
				if err != nil {
					t.Fatal(err)
				}
				if err := repo.Checkout(t.Context(), commit, repo.root, name, CheckoutOptions{}); err != nil {
					t.Fatal(err)
				}
				want, err := repo.LoadDirMeta(sum)
				if err != nil {
					t.Fatal(err)
				}
				got := headerOf(t, filepath.Join(repo.dir, name))
				if got.Xattrs, err = normalizeXattrs(got.Xattrs); err != nil {
					t.Fatal(err)
				}
				if differs, equal := xattr.Equal(got.Xattrs, want.Xattrs); !equal || got.Mode != want.Mode {
					t.Errorf("%s: mode %#o in the object, %#o of the directory; attribute %q", name, want.Mode, got.Mode, differs)
				}
			}
		})
	}
}

func TestAttributesThatCannotBeSet(t *testing.T) {
	repo := createRepo(t)
	bad := aclAttr(xattr.ACLAccess, aclEntry{owner, 6, noOne}, aclEntry{owningGroup, 4, noOne})
	for _, x := range []Xattr{bad, {Name: "com.apple.provenance", Value: []byte("1")}, {Name: "security.capability", Value: []byte("1")}} {
		h := FileHeader{Mode: modeRegular | 0o644, Xattrs: []Xattr{x}}
		if sum, err := repo.WriteContent(t.Context(), h, 0, strings.NewReader("")); !errors.As(err, new(*FormatError)) {
			t.Errorf("%s: stored as %s, %v", x.Name, sum, err)
		}
		if sum, err := repo.WriteDirMeta(DirMeta{Mode: modeDirectory | 0o755, Xattrs: []Xattr{x}}); !errors.As(err, new(*FormatError)) {
			t.Errorf("%s: stored as %s, %v", x.Name, sum, err)
		}
	}
}

// mountImage mounts a new file system until the test's end.
func mountImage(t *testing.T, fs string) string {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs."+fs, "-q", image)
	mustMkdir(t, at)
	run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	if err := unix.Access(at, unix.W_OK); err != nil {
		t.Fatal(err)
	}
	return at
}
