package ostree

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func aclOf(entries ...aclEntry) Xattr { return Xattr{Name: aclXattr, Value: encodeACL(entries)} }

// aclFiles are files with lists: one that adds to the mode, one that is no more
// than a mode, and two that contradict it.
func aclFiles() map[string]FileHeader {
	named := []aclEntry{{aclUserObj, 6, aclNoID}, {aclUser, 6, 1000}, {aclGroupObj, 4, aclNoID}, {aclGroup, 1, 7}, {aclMask, 6, aclNoID}, {aclOther, 4, aclNoID}}
	plain := []aclEntry{{aclUserObj, 7, 0}, {aclGroupObj, 5, 0}, {aclOther, 1, 0}}
	other := Xattr{Name: "user.z", Value: []byte("z")}
	return map[string]FileHeader{
		"named":          {Mode: modeRegular | 0o664, Xattrs: []Xattr{aclOf(named...), other}},
		"named, no mode": {Mode: modeRegular | 0o4000, Xattrs: []Xattr{aclOf(named...)}},
		"plain":          {Mode: modeRegular | 0o751, Xattrs: []Xattr{aclOf(plain...), other}},
		"plain, no mode": {Mode: modeRegular | 0o2600, Xattrs: []Xattr{aclOf(plain...)}},
		"mask alone":     {Mode: modeRegular | 0o640, Xattrs: []Xattr{aclOf(append(plain[:2:2], aclEntry{aclMask, 2, 0}, plain[2])...)}},
	}
}

// What is stored must be what the file system shows, or ostree calls it corrupt.
func TestACLsOnEachFileSystem(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			repo := createRepoIn(t, mountImage(t, fs))
			if repo.xfs != (fs == "xfs") {
				t.Errorf("XFS: %v", repo.xfs)
			}
			for name, h := range aclFiles() {
				sum, err := repo.WriteContent(t.Context(), h, int64(len(name)), strings.NewReader(name))
				if err != nil {
					t.Fatal(err)
				}
				if err := repo.verifyFile(t.Context(), sum); err != nil {
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

func TestBadACLs(t *testing.T) {
	repo := createRepo(t)
	good := encodeACL([]aclEntry{{aclUserObj, 6, aclNoID}, {aclGroupObj, 4, aclNoID}, {aclOther, 4, aclNoID}})
	entry := func(tag, perm uint16, id uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, tag), perm), id)
	}
	for name, value := range map[string][]byte{
		"short": good[:3], "odd length": good[:len(good)-1], "version": append([]byte{3}, good[1:]...), "no others": good[:len(good)-8],
		"nothing": good[:4], "twice": append(good[:len(good):len(good)], good[len(good)-8:]...),
		"order":    append(append(good[:4:4], good[12:20]...), good[4:12]...),
		"no mask":  append(append(append([]byte{}, good[:12]...), entry(aclUser, 7, 5)...), good[12:]...),
		"bits":     append(append([]byte{}, good[:20]...), entry(aclOther, 9, aclNoID)...),
		"unknown":  append(good[:len(good):len(good)], entry(0x40, 4, 0)...),
		"nobody":   append(append(append(append([]byte{}, good[:12]...), entry(aclUser, 7, aclNoID)...), good[12:20]...), append(entry(aclMask, 7, aclNoID), good[20:]...)...),
		"unsorted": append(append([]byte{}, good[:4]...), append(entry(aclOther, 4, 0), good[4:20]...)...),
	} {
		h := FileHeader{Mode: modeRegular | 0o644, Xattrs: []Xattr{{Name: aclXattr, Value: value}}}
		if sum, err := repo.WriteContent(t.Context(), h, 0, strings.NewReader("")); err == nil {
			t.Errorf("%s: stored as %s", name, sum)
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
