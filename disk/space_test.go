package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// makers make each kind of root as installations do, and as newer versions of the programs do by
// default.
var rootMakers = []struct {
	fs   Filesystem
	argv []string
}{
	{XFS, []string{"mkfs.xfs", "-q", "-m", "rmapbt=0"}},
	{XFS, []string{"mkfs.xfs", "-q", "-m", "rmapbt=1"}},
	{Ext4, []string{"mkfs.ext4", "-q", "-b", "4096", "-O", ext4Features}},
	{Btrfs, []string{"mkfs.btrfs", "-q"}},
}

// mountedRoot makes a file system of a size in a sparse file and mounts it.
func mountedRoot(t *testing.T, size int64, argv ...string) string {
	t.Helper()
	path, dir := filepath.Join(t.TempDir(), "root"), t.TempDir()
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, argv[0], append(argv[1:], path)...)
	kit.Run(t, "mount", "-o", "loop", path, dir)
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.UMOUNT_NOFOLLOW), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// The planned size of a root must be enough by the file system's own account, and not far too
// large.
func TestRootHasRoom(t *testing.T) {
	for _, content := range []int64{100 * mib, 1 << 30, 20 << 30, 140 << 30} {
		for _, files := range []int64{content / (64 << 10), content / (12 << 10)} {
			s := Space{Content: content, Inodes: files}
			for _, m := range rootMakers {
				size := s.Root(m.fs)
				dir := mountedRoot(t, max(size, smallestRoot), m.argv...)
				if err := s.CheckFree(dir, m.fs); err != nil {
					t.Errorf("%v, %d MiB in %d files: %v", m.argv, content/mib, files, err)
				}
				if limit := s.Free(m.fs)*108/100 + 300*mib; size > limit && size > files*ext4InodeRatio*2 {
					t.Errorf("%v, %d MiB in %d files: a root of %d MiB is more than %d MiB", m.argv, content/mib, files, size/mib, limit/mib)
				}
			}
		}
	}
}

// filled writes the content of s as a repository has it: objects with long names in 256
// directories, and a second name of each in directories of ten files.
func filled(t *testing.T, dir string, s Space) error {
	t.Helper()
	const directories = 256
	tenth := (s.Inodes - directories) / 11 // a directory for each ten files
	files := s.Inodes - directories - tenth
	blocks := (s.Content - (directories+tenth)*4096) / 4096
	content := make([]byte, 4*blocks/files*4096)
	for i := range content {
		content[i] = byte(i * 7)
	}
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range int64(directories) {
		if err := os.Mkdir(fmt.Sprintf("%s/%02x", dir, i), 0o755); err != nil {
			return err
		}
	}
	for i := range files {
		name := fmt.Sprintf("%s/%02x/%062x.file", dir, i%directories, i)
		size := blocks / files * 4096 / 2 * (1 + 2*(i%2)) // half of them small, half of them large
		if err := os.WriteFile(name, content[:size], 0o644); err != nil {
			return err
		}
		if i%10 == 0 && i/10 < tenth {
			if err := os.Mkdir(fmt.Sprintf("%s/dir%d", dir, i/10), 0o755); err != nil {
				return err
			}
		}
		if i%500 == 0 { // as an import does: content that is not written out reserves more than it needs
			if err := unix.Syncfs(int(root.Fd())); err != nil {
				return err
			}
		}
		if err := os.Link(name, fmt.Sprintf("%s/dir%d/deployed-name-%d", dir, min(i/10, tenth-1), i)); err != nil {
			return err
		}
	}
	return unix.Syncfs(int(root.Fd()))
}

// A root of the planned size must take the planned content in fact.
func TestRootTakesTheContent(t *testing.T) {
	s := Space{Content: 160 * mib, Inodes: 12000}
	for _, m := range rootMakers {
		dir := mountedRoot(t, max(s.Root(m.fs), smallestRoot), m.argv...)
		if err := filled(t, dir, s); err != nil {
			t.Errorf("%v, %+v: %v", m.argv, s, err)
		}
	}
}

func TestCheckFreeNamesTheNumber(t *testing.T) {
	dir := mountedRoot(t, smallestRoot, "mkfs.ext4", "-q", "-b", "4096", "-i", "65536")
	inodes := strings.TrimSpace(kit.Run(t, "stat", "--file-system", "--format=%d", dir)) // one fewer with an orphan file
	for _, c := range []struct {
		s    Space
		want string
	}{
		{Space{Content: 100 * mib, Inodes: 1000}, ""},
		{Space{Content: 300 * mib, Inodes: 1000}, " has too little room: 381937664 bytes are needed, "},
		{Space{Content: 10 * mib, Inodes: 6000}, " has too little room: 6000 inodes are needed, " + inodes + " are free"},
	} {
		err := c.s.CheckFree(dir, Ext4)
		var full *NoRoomError
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &full) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
}
