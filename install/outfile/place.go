package outfile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is where an output goes: a name in a directory that is held open.
type place struct {
	path       string // for messages
	dir        *os.File
	name       string
	exists     bool
	stat       unix.Stat_t // of the file that has the name, if it exists
	descriptor int         // of this process that the path names; -1 = none
}

// maxLinks is how many links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// resolve finds the place of a path, behind the symbolic links that its last name may be.
func resolve(path string) (place, error) {
	p := place{path: path, descriptor: -1}
	at, name := unix.AT_FDCWD, path
	for range maxLinks {
		if name == "" || strings.HasSuffix(name, "/") || filepath.Base(name) == "." || filepath.Base(name) == ".." {
			p.close()
			return p, &NotRegularError{Path: path, Mode: unix.S_IFDIR}
		}
		fd, err := unix.Openat(at, filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			p.close()
			return p, &os.PathError{Op: "open", Path: filepath.Dir(p.path), Err: err}
		}
		p.close()
		p.dir, p.name = os.NewFile(uintptr(fd), filepath.Dir(p.path)), filepath.Base(name)
		at = fd
		target, done, err := p.look()
		if done || err != nil {
			if err != nil {
				p.close()
			}
			return p, err
		}
		name, p.path = target, joined(p.path, target)
	}
	p.close()
	return p, &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// look looks at the file that has the name, and returns the target of a link.
func (p *place) look() (target string, done bool, err error) {
	err = unix.Fstatat(p.dirFD(), p.name, &p.stat, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return "", true, nil
	}
	if err != nil {
		return "", true, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	if p.stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		p.exists = true
		return "", true, nil
	}
	if own, err := p.ownDescriptor(); own || err != nil {
		return "", true, err
	}
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dirFD(), p.name, buffer)
	if err != nil {
		return "", true, &os.PathError{Op: "readlink", Path: p.path, Err: err}
	}
	return string(buffer[:n]), false, nil
}

// ownDescriptor recognises a descriptor of this process, such as /dev/stdout. It is written to as it
// is: the file behind it has other content already.
func (p *place) ownDescriptor() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(p.dirFD(), &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return false, nil // a link that is read as any other
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.dirFD()))
	self, noSelf := os.Readlink("/proc/self")
	n, notNumber := strconv.Atoi(p.name)
	if err != nil || noSelf != nil || notNumber != nil || dir != "/proc/"+self+"/fd" {
		return false, &NotRegularError{Path: p.path}
	}
	p.descriptor = n
	if err := unix.Fstat(n, &p.stat); err != nil {
		return false, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	p.exists = true
	return true, nil
}

func (p *place) dirFD() int { return int(p.dir.Fd()) }

func (p *place) close() {
	if p.dir != nil {
		p.dir.Close() // it is a place only: nothing was written through it
		p.dir = nil
	}
}

// maxEarlier is the size of the largest file that is looked at for an earlier output, in bytes.
const maxEarlier = 64 << 20

// replaceable refuses a file with content that nobody meant to lose, and one that the kernel will
// not replace.
func (p place) replaceable(mine func([]byte) bool) error {
	if err := p.renameable(); err != nil {
		return err
	}
	if mine == nil || p.stat.Size == 0 {
		return nil
	}
	if p.stat.Size > maxEarlier {
		return &ForeignError{Path: p.path}
	}
	fd, err := unix.Openat(p.dirFD(), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), p.path)
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxEarlier))
	if err != nil {
		return err
	}
	if !mine(content) {
		return &ForeignError{Path: p.path}
	}
	return nil
}

// renameable refuses early where rename(2) would refuse at the end: an immutable file or directory
// (chattr(1)), and a file of somebody else in a directory with the sticky bit.
func (p place) renameable() error {
	const append, immutable = 0x20, 0x10 // FS_APPEND_FL, FS_IMMUTABLE_FL of linux/fs.h
	for _, name := range []string{p.name, "."} {
		fd, err := unix.Openat(p.dirFD(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // its flags are not ours to read; rename(2) judges
		}
		flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		unix.Close(fd)
		if err == nil && flags&(append|immutable) != 0 {
			return &os.PathError{Op: "rename", Path: filepath.Join(filepath.Dir(p.path), name), Err: errImmutable}
		}
	}
	var dir unix.Stat_t
	if err := unix.Fstat(p.dirFD(), &dir); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(p.path), Err: err}
	}
	if uid := uint32(os.Geteuid()); uid != 0 && dir.Mode&unix.S_ISVTX != 0 && p.stat.Uid != uid && dir.Uid != uid {
		return fmt.Errorf("it belongs to another user, in a directory with the sticky bit: %w", unix.EPERM)
	}
	return nil
}
