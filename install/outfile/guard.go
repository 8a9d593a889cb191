package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"installer/disk/mounts"

	"golang.org/x/sys/unix"
)

var errImmutable = fmt.Errorf("it is immutable or append-only (lsattr shows it; chattr changes it): %w", unix.EPERM)

// ProtectedError refuses an output that is, or lies in, something that the command uses otherwise.
type ProtectedError struct {
	Path string
	In   bool   // it lies in it
	Role string // such as "the target"
}

func (e *ProtectedError) Error() string {
	if e.In {
		return fmt.Sprintf("%s lies in %s", e.Path, e.Role)
	}
	return fmt.Sprintf("%s is %s", e.Path, e.Role)
}

// Advice is the remedy.
func (e *ProtectedError) Advice() string { return "name another file" }

// ForeignError refuses to replace a file that is no earlier output.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return e.Path + " exists, and is no report of the installer's"
}

// Advice is the remedy.
func (e *ForeignError) Advice() string { return "name another file, or remove that one" }

// Guard is a set of files, directories and file systems that no output may replace or lie in. Files
// are compared by device and inode number, devices by their numbers, and files that are yet to be
// made by their directory and name, so that links, bind mounts and other spellings are recognised.
type Guard struct {
	files   map[object]string // with the role of each
	trees   map[object]string // directories; mounts below them are other places
	roots   map[object]string // directories, with the mounts below them
	names   map[entry]string
	devices map[uint64]string // block devices, by number
	systems map[mounts.DevNum]string
}

// object is a file or directory.
type object struct{ dev, ino uint64 }

func objectOf(st unix.Statx_t) object {
	return object{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

// entry is a name in a directory.
type entry struct {
	dir  object
	name string
}

// NewGuard returns an empty set.
func NewGuard() *Guard {
	return &Guard{files: map[object]string{}, trees: map[object]string{}, roots: map[object]string{}, names: map[entry]string{},
		devices: map[uint64]string{}, systems: map[mounts.DevNum]string{}}
}

// AddFile protects a file or device, or the name of a file that is yet to be made. An empty path is
// no file.
func (g *Guard) AddFile(role, path string) error {
	if path == "" {
		return nil
	}
	p, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotRegular) {
		return nil // nothing that could be replaced: the command itself refuses it
	}
	if err != nil {
		return fmt.Errorf("looking at %s: %w", role, err)
	}
	defer p.close()
	if p.dir != nil && p.descriptor < 0 {
		name, err := p.entry()
		if err != nil {
			return err
		}
		g.names[name] = role
	}
	if !p.exists {
		return nil
	}
	g.files[object{p.stat.Dev, p.stat.Ino}] = role
	if p.stat.Mode&unix.S_IFMT == unix.S_IFBLK {
		g.devices[p.stat.Rdev] = role
	}
	return nil
}

// AddTree protects a directory with everything in it. A path that is a file is protected as such.
// Mounts below it, as the roots of running containers in podman's storage, are left out.
func (g *Guard) AddTree(role, path string) error {
	var top unix.Statx_t
	err := filepath.WalkDir(path+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
			return &os.PathError{Op: "statx", Path: path, Err: err}
		}
		if top.Ino == 0 {
			top = st
		}
		if st.Mnt_id != top.Mnt_id {
			return fs.SkipDir
		}
		g.trees[objectOf(st)] = role
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return g.AddFile(role, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil // the command itself refuses it
	case err != nil:
		return fmt.Errorf("looking at %s: %w", role, err)
	}
	return nil
}

// AddFilesystem protects the directory path, and the file system that it lies on, wherever that is
// mounted.
func (g *Guard) AddFilesystem(role, path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // the command itself refuses it
	}
	if err != nil {
		return fmt.Errorf("looking at %s: %w", role, &os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	system, at, err := filesystemOf(fd)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", role, err)
	}
	g.systems[system] = role
	g.roots[at] = role
	return nil
}

// Check refuses a path that must be no output.
func (g *Guard) Check(path string) error {
	p, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is nothing to replace, and no place for a file
	}
	if err != nil {
		return fmt.Errorf("looking at the output %s: %w", path, err)
	}
	defer p.close()
	return g.check(p)
}

func (g *Guard) check(p place) error {
	if g == nil {
		return nil
	}
	if p.exists {
		role, found := g.files[object{p.stat.Dev, p.stat.Ino}]
		if !found && p.stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			role, found = g.devices[p.stat.Rdev]
		}
		if found {
			return &ProtectedError{Path: p.path, Role: role}
		}
	}
	if p.descriptor >= 0 || p.dir == nil {
		return nil // it has no name of its own
	}
	name, err := p.entry()
	if err != nil {
		return err
	}
	if role, found := g.names[name]; found {
		return &ProtectedError{Path: p.path, Role: role}
	}
	if p.exists && p.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // a pipe or a device: its directory does not change
	}
	return g.checkParents(p)
}

// checkParents refuses a place in a protected directory or file system.
func (g *Guard) checkParents(p place) error {
	if len(g.systems) > 0 {
		system, _, err := filesystemOf(p.dirFD())
		if err != nil {
			return fmt.Errorf("looking at the output %s: %w", p.path, err)
		}
		if role, found := g.systems[system]; found {
			return &ProtectedError{Path: p.path, In: true, Role: role}
		}
	}
	role, err := g.above(p)
	if err != nil {
		return fmt.Errorf("looking at the directories above the output %s: %w", p.path, err)
	}
	if role != "" {
		return &ProtectedError{Path: p.path, In: true, Role: role}
	}
	return nil
}

// above returns the role of the protected directory that the place lies in, "" if it lies in none.
// A tree is left where a mount begins: the root of a container can lie in podman's storage, and a
// volume on it does not.
func (g *Guard) above(p place) (role string, err error) {
	fd, err := unix.Openat(p.dirFD(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { unix.Close(fd) }()
	var first, below unix.Statx_t
	for {
		var st unix.Statx_t
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
			return "", err
		}
		here := objectOf(st)
		switch {
		case first.Ino == 0:
			first = st
		case st.Mnt_id == below.Mnt_id && here == objectOf(below):
			return "", nil // the root is its own parent
		}
		if role := g.roots[here]; role != "" {
			return role, nil
		}
		if role := g.trees[here]; role != "" && st.Mnt_id == first.Mnt_id {
			return role, nil
		}
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		unix.Close(fd)
		fd, below = up, st
	}
}

func (p place) entry() (entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.dirFD(), &st); err != nil {
		return entry{}, &os.PathError{Op: "stat", Path: filepath.Dir(p.path), Err: err}
	}
	return entry{object{st.Dev, st.Ino}, p.name}, nil
}

// filesystemOf returns the file system of a directory, as mountinfo shows it: st_dev differs
// between the subvolumes of a btrfs.
func filesystemOf(fd int) (mounts.DevNum, object, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return mounts.DevNum{}, object{}, err
	}
	at := objectOf(st)
	list, err := mounts.OwnMounts()
	if err != nil {
		return mounts.DevNum{}, object{}, err
	}
	if m, found := mounts.Find(list, int(st.Mnt_id)); found {
		return m.Dev, at, nil
	}
	return mounts.DevNum{Major: st.Dev_major, Minor: st.Dev_minor}, at, nil
}
